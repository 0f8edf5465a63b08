"""Cross layers: what one stream gets from the other, with norms, residuals and MLPs, in chunks where that helps."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..ops import available_backends, stream_attention
from .attention import AttentionMaps, BidirectionalCrossAttention, CrossAttention
from .chunks import Chunked, attend_in_chunks, of_clouds
from .plain import is_plain
from .residual import Branch, ResidualMLP, norm


class BidirectionalCross(Chunked):
    """Bi-directional cross-attention and an MLP on both sides, each with norm and residual.

    In chunks, everything on the side of the tokens is done for one chunk after the other.
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

        ``overwrite`` allows the result of the tokens to take their memory, which happens where they go in chunks.
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
            latent_update, tokens = self._exchange_in_chunks(latents, tokens, size, overwrite)
        return self.latent_mlp(latents + self.latent_branch(latent_update)), tokens, maps

    def _exchange_in_chunks(
        self, latents: Tensor, tokens: Tensor, size: int, overwrite: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the update of the latents and the updated tokens."""
        sides = self.attention.latent_side(self.latent_norm(latents))

        def attend(clouds: slice, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            latent_out, update, logsumexp = self._attend([of_clouds(x, clouds) for x in sides], part)
            return latent_out, logsumexp, self.token_mlp(part, self.token_branch(update), overwrite=overwrite)

        latent_out, updated = attend_in_chunks(attend, tokens, size, overwrite)
        assert updated is not None
        return self.attention.latent_update(latent_out), updated

    def _attend(self, sides: list[Tensor], tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the latents get, the update of the tokens and the log-sums, in one op where that can be."""
        attention = self.attention
        modules = self.token_norm, attention.token_ref_val, attention.token_proj
        together = _in_one_op({attention: BidirectionalCrossAttention}, modules, sides[0], sides[1], tokens)
        if together is not None:
            latent_out, update, logsumexp = together
            assert update is not None
            return latent_out, update, logsumexp
        token_side = attention.token_side(self.token_norm(tokens))
        latent_out, token_out, logsumexp = attention.attend(*sides, *token_side, return_logsumexp=True)
        return latent_out, attention.token_update(token_out), logsumexp


class CrossUpdate(Chunked):
    """One stream reads another and passes an MLP, each with norm and residual.

    In chunks, what is read is normalised and mapped one chunk after the other.
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
        """Update ``(B or 1, M, query_dim)`` from ``(B, N, context_dim)``."""
        weights = None
        size = None if return_attention else self.chunk_size(context, {self.attention: CrossAttention})
        if size is None:
            update, weights = self.attention(
                self.query_norm(query), self.context_norm(context), return_attention=return_attention
            )
        else:
            update = self._read_in_chunks(query, context, size)
        return self.mlp(query + self.branch(update)), weights

    def _read_in_chunks(self, query: Tensor, context: Tensor, size: int) -> Tensor:
        q = self.attention.query_side(self.query_norm(query))

        def attend(clouds: slice, part: Tensor) -> tuple[Tensor, Tensor, None]:
            return *self._attend(of_clouds(q, clouds), part), None

        return self.attention.update(attend_in_chunks(attend, context, size)[0])

    def _attend(self, query: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the queries get and the log-sums, in one op where that can be."""
        attention = self.attention
        modules = self.context_norm, attention.key_val
        together = _in_one_op({attention: CrossAttention}, modules, query, None, context)
        if together is not None:
            return together[0], together[2]
        return attention.attend_to_part(query, self.context_norm(context))


class LatentUpdate(CrossUpdate):
    """One-sided cross layer: the latents read the tokens, which pass unchanged."""

    def forward(  # type: ignore[override]
        self, latents: Tensor, tokens: Tensor, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor, AttentionMaps | None]:
        """Update ``(B or 1, M, latent_dim)`` latents from ``(B, N, token_dim)`` tokens."""
        latents, weights = super().forward(latents, tokens, return_attention=return_attention)
        return latents, tokens, None if weights is None else AttentionMaps(weights, None)


def _in_one_op(
    built_as: dict[nn.Module, type[nn.Module]],
    modules: tuple[nn.Module, ...],
    latent_ref: Tensor,
    latent_val: Tensor | None,
    tokens: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor] | None:
    """Attend from the norm of the tokens on by :func:`bixt3d.ops.stream_attention`.

    Returns:
        its result, or None where the library cannot, another backend was named, or a module is not what it was built
        as: the attention, and ``modules``, the norm and the linear maps around it.
    """
    (attention,) = built_as
    norm_, *maps = modules
    kinds = built_as | {norm_: nn.LayerNorm} | dict.fromkeys(maps, nn.Linear)
    if attention.backend not in (None, "cpu") or not is_plain(kinds):
        return None
    parameters: list[Any] = [parameter for module in modules for parameter in (module.weight, module.bias)]
    if any(parameter is None for parameter in parameters):
        return None
    if available_backends("stream_attention", latent_ref, latent_val, tokens, *parameters)["cpu"] is not None:
        return None
    eps: Any = norm_.eps
    return stream_attention(latent_ref, latent_val, tokens, *parameters, eps=eps, backend="cpu")
