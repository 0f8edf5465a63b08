"""Cross layers: cross-attention between the two streams with norms, residuals and MLPs, processed in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..ops import available_backends, stream_attention
from .attention import AttentionMaps, BidirectionalCrossAttention, CrossAttention
from .chunks import Chunked, attend_in_chunks
from .plain import is_plain
from .residual import Branch, ResidualMLP, norm


class BidirectionalCross(Chunked):
    """Bi-directional cross-attention and an MLP for both streams, each with a norm and a residual.

    With chunks, all steps on the side of the tokens are done for one chunk after the other.
    """

    def __init__(
        self,
        latent_dim: int,
        token_dim: int,
        *,
        num_heads: int,
        attention_dim: int | None = None,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        dropout: float = 0.0,
        backend: str | None = None,
    ):
        super().__init__()
        self.latent_norm = norm(latent_dim)
        self.token_norm = norm(token_dim)
        self.attention = BidirectionalCrossAttention(
            latent_dim,
            token_dim,
            num_heads=num_heads,
            attention_dim=attention_dim,
            dropout=dropout,
            backend=backend,
        )
        self.latent_branch = Branch(latent_dim, drop_path=drop_path, layer_scale=layer_scale)
        self.token_branch = Branch(token_dim, drop_path=drop_path, layer_scale=layer_scale)
        self.latent_mlp = ResidualMLP(
            latent_dim, mlp_ratio=mlp_ratio, drop_path=drop_path, layer_scale=layer_scale
        )
        self.token_mlp = ResidualMLP(
            token_dim, mlp_ratio=mlp_ratio, drop_path=drop_path, layer_scale=layer_scale
        )

    def forward(
        self, latents: Tensor, tokens: Tensor, *, return_attention: bool = False, overwrite: bool = False
    ) -> tuple[Tensor, Tensor, AttentionMaps | None]:
        """Update ``(B or 1, M, latent_dim)`` latents and ``(B, N, token_dim)`` tokens.

        ``overwrite`` allows the updated tokens to be written over ``tokens``, which happens if they are processed in
        chunks.
        """
        maps = None
        kinds = {self.attention: BidirectionalCrossAttention, self.token_mlp: ResidualMLP}
        size = None if return_attention else self.chunk_size(tokens, kinds)
        if size is None:
            latent_update, token_update, maps = self.attention(
                self.latent_norm(latents), self.token_norm(tokens), return_attention=return_attention
            )
            tokens = self.token_mlp(tokens, self.token_branch(token_update))
        else:
            side = self.attention.latent_side(self.latent_norm(latents))

            def attend(side: Sequence[Tensor], part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
                latent_out, update, logsumexp = _attend(self.attention, self.token_norm, side, part)
                updated = self.token_mlp(part, self.token_branch(update), overwrite=overwrite)
                return latent_out, updated, logsumexp

            latent_out, tokens = attend_in_chunks(attend, side, tokens, size, overwrite)
            latent_update = self.attention.latent_update(latent_out)
        return self.latent_mlp(latents + self.latent_branch(latent_update)), tokens, maps


class CrossUpdate(Chunked):
    """Cross-attention of one stream to another, and an MLP, each with a norm and a residual.

    With chunks, the context is normalised and mapped one chunk after the other.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int,
        *,
        num_heads: int,
        attention_dim: int | None = None,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        dropout: float = 0.0,
        backend: str | None = None,
    ):
        super().__init__()
        self.query_norm = norm(query_dim)
        self.context_norm = norm(context_dim)
        self.attention = CrossAttention(
            query_dim,
            context_dim,
            num_heads=num_heads,
            attention_dim=attention_dim,
            dropout=dropout,
            backend=backend,
        )
        self.branch = Branch(query_dim, drop_path=drop_path, layer_scale=layer_scale)
        self.mlp = ResidualMLP(query_dim, mlp_ratio=mlp_ratio, drop_path=drop_path, layer_scale=layer_scale)

    def forward(
        self, query: Tensor, context: Tensor, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Update the queries ``(B or 1, M, query_dim)`` from the context ``(B, N, context_dim)``."""
        weights = None
        size = None if return_attention else self.chunk_size(context, {self.attention: CrossAttention})
        if size is None:
            update, weights = self.attention(
                self.query_norm(query), self.context_norm(context), return_attention=return_attention
            )
        else:
            side = self.attention.latent_side(self.query_norm(query))
            attend = partial(_attend, self.attention, self.context_norm)
            update = self.attention.latent_update(attend_in_chunks(attend, side, context, size)[0])
        return self.mlp(query + self.branch(update)), weights


class LatentUpdate(CrossUpdate):
    """One-sided cross layer: the latents attend to the tokens, which are returned unchanged."""

    def forward(  # type: ignore[override]
        self, latents: Tensor, tokens: Tensor, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor, AttentionMaps | None]:
        """Update ``(B or 1, M, latent_dim)`` latents from ``(B, N, token_dim)`` tokens."""
        latents, weights = super().forward(latents, tokens, return_attention=return_attention)
        return latents, tokens, None if weights is None else AttentionMaps(weights, None)


def _attend(
    attention: BidirectionalCrossAttention | CrossAttention,
    token_norm: nn.LayerNorm,
    latent_side: Sequence[Tensor],
    tokens: Tensor,
) -> tuple[Tensor, Any, Tensor]:
    """Attend to a part of the tokens, without calling ``attention`` itself.

    If the compiled library can run it, no other backend is named, and the norm and linear maps are plain modules, this
    is the single op :func:`bixt3d.ops.stream_attention`.

    Returns:
        The attention output of the latents, the tokens' update (None if they are only read) and the log-sums.
    """
    maps = attention.token_maps
    kinds: dict[nn.Module, type[nn.Module]] = {token_norm: nn.LayerNorm} | dict.fromkeys(maps, nn.Linear)
    if attention.backend in (None, "cpu") and is_plain(kinds):
        parameters: list[Any] = [x for module in (token_norm, *maps) for x in (module.weight, module.bias)]
        latent_ref, latent_val = (*latent_side, None)[:2]  # one-sided attention has no latent values
        inputs = (latent_ref, latent_val, tokens, *parameters)
        whole = all(x is not None for x in parameters)
        if whole and available_backends("stream_attention", *inputs)["cpu"] is None:
            return stream_attention(*inputs, eps=token_norm.eps, backend="cpu")
    return attention.attend_to_part(latent_side, token_norm(tokens))
