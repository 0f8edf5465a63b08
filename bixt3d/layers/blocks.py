"""Transformer blocks of the BiXT encoder and of the attention types it is compared with.

A *cross* layer connects the two streams, ``(latents, tokens) -> (latents, tokens, maps)``; an
:class:`EncoderBlock` adds self-attention of the latents. The three ``*_cross`` functions build the cross
layer of one attention type and are what a config names.

Source: Hiller et al., BiXT (arXiv 2402.12138), section 2.3 and tables 1a and A1.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from ..ops import available_backends, stream_attention
from .attention import AttentionMaps, BidirectionalCrossAttention, CrossAttention, SelfAttention
from .chunks import Chunked, attend_in_chunks, is_plain, of_clouds
from .residual import Branch, ResidualMLP, norm


class LatentSelfAttention(nn.Module):
    """Self-attention and MLP over the latents, each with norm and residual.

    Shape: ``(B, M, dim)`` -> ``(B, M, dim)``.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm = norm(dim)
        self.attention = SelfAttention(dim, num_heads=num_heads, dropout=dropout)
        self.branch = Branch(dim, drop_path=drop_path, layer_scale=layer_scale)
        self.mlp = ResidualMLP(dim, mlp_ratio=mlp_ratio, drop_path=drop_path, layer_scale=layer_scale)

    def forward(self, latents: Tensor) -> Tensor:
        """Let the latents attend to each other."""
        latents = latents + self.branch(self.attention(self.norm(latents)))
        return self.mlp(latents)


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
        size = None if return_attention else self.chunk_size(tokens)
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
        maps = attention.token_ref_val, attention.token_proj
        if _go_together(attention, BidirectionalCrossAttention, self.token_norm, *maps):
            inputs = (*sides, tokens, *_parameters(self.token_norm, *maps))
            if available_backends("stream_attention", *inputs)["cpu"] is None:
                latent_out, update, logsumexp = stream_attention(
                    *inputs, eps=self.token_norm.eps, backend="cpu"
                )
                assert update is not None
                return latent_out, update, logsumexp
        token_side = attention.token_side(self.token_norm(tokens))
        latent_out, token_out, logsumexp = attention.attend(*sides, *token_side, return_logsumexp=True)
        return latent_out, attention.token_update(token_out), logsumexp


def _go_together(attention: nn.Module, kind: type[nn.Module], *modules: nn.Module) -> bool:
    """Whether one op may stand for a norm and maps around the attention."""
    norm_, *maps = modules
    kinds = {attention: kind, norm_: nn.LayerNorm} | dict.fromkeys(maps, nn.Linear)
    return attention.backend in (None, "cpu") and is_plain(kinds)


def _parameters(*modules: nn.LayerNorm | nn.Linear) -> list[Tensor]:
    return [parameter for module in modules for parameter in (module.weight, module.bias)]


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
        size = None if return_attention else self.chunk_size(context)
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
        if _go_together(attention, CrossAttention, self.context_norm, attention.key_val):
            parameters = _parameters(self.context_norm, attention.key_val)
            if available_backends("stream_attention", query, None, context, *parameters)["cpu"] is None:
                eps = self.context_norm.eps
                out, _, logsumexp = stream_attention(
                    query, None, context, *parameters, eps=eps, backend="cpu"
                )
                return out, logsumexp
        return attention.attend_to_part(query, self.context_norm(context))


class LatentUpdate(CrossUpdate):
    """One-sided cross layer: the latents read the tokens, which pass unchanged."""

    def forward(  # type: ignore[override]
        self, latents: Tensor, tokens: Tensor, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor, AttentionMaps | None]:
        """Update ``(B or 1, M, latent_dim)`` latents from ``(B, N, token_dim)`` tokens."""
        latents, weights = super().forward(latents, tokens, return_attention=return_attention)
        return latents, tokens, None if weights is None else AttentionMaps(weights, None)


class SequentialCross(nn.Module):
    """Two independent cross-attentions: latents read tokens, then tokens read the updated latents."""

    def __init__(
        self, latent_dim: int, token_dim: int, *, num_heads: int, attention_dim: int | None = None, **options
    ):
        super().__init__()
        attention_dim = attention_dim or latent_dim
        self.latents_from_tokens = CrossUpdate(
            latent_dim, token_dim, num_heads=num_heads, attention_dim=attention_dim, **options
        )
        self.tokens_from_latents = CrossUpdate(
            token_dim, latent_dim, num_heads=num_heads, attention_dim=attention_dim, **options
        )

    def forward(
        self, latents: Tensor, tokens: Tensor, *, return_attention: bool = False
    ) -> tuple[Tensor, Tensor, AttentionMaps | None]:
        """Update ``(B or 1, M, latent_dim)`` latents, then ``(B, N, token_dim)`` tokens."""
        latents, read = self.latents_from_tokens(latents, tokens, return_attention=return_attention)
        tokens, written = self.tokens_from_latents(tokens, latents, return_attention=return_attention)
        return latents, tokens, None if read is None else AttentionMaps(read, written)


class CrossFactory(Protocol):
    """What builds the cross layer of a block; a config completes it with ``_partial_: true``."""

    def __call__(self, latent_dim: int, token_dim: int, *, one_sided: bool, **options) -> nn.Module:
        """Build one cross layer."""


def bidirectional_cross(latent_dim: int, token_dim: int, *, one_sided: bool, **options) -> nn.Module:
    """Build the cross layer of BiXT; one-sided it is a :class:`LatentUpdate`.

    Args:
        latent_dim, token_dim: widths of the two streams.
        one_sided: update only the latents (last layer of a classifier).
        **options: of :class:`BidirectionalCross`.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 2.3.
    """
    if one_sided:
        if options.get("backend") == "triton":  # has no one-sided form
            options["backend"] = None
        return LatentUpdate(latent_dim, token_dim, **options)
    return BidirectionalCross(latent_dim, token_dim, **options)


def sequential_cross(latent_dim: int, token_dim: int, *, one_sided: bool, **options) -> nn.Module:
    """Build a sequential two-way cross layer; one-sided it is a :class:`LatentUpdate`.

    Args and source: as :func:`bidirectional_cross`; tables 1a and A1 of the paper ("sequential").
    """
    layer = LatentUpdate if one_sided else SequentialCross
    return layer(latent_dim, token_dim, **options)


def iterative_cross(latent_dim: int, token_dim: int, *, one_sided: bool, **options) -> nn.Module:
    """Build the read of a Perceiver: the latents read the tokens, which are never updated.

    Args and source: as :func:`bidirectional_cross`; Jaegle et al., Perceiver (2021), section 3.2.
    ``one_sided`` is accepted for the common signature and changes nothing.
    """
    return LatentUpdate(latent_dim, token_dim, **options)


class EncoderBlock(nn.Module):
    """A cross layer, then self-attention of the latents.

    Args:
        cross: layer ``(latents, tokens, return_attention=...) -> (latents, tokens, maps)``.
        self_attention: layers over the latents, applied in order.

    Source: Hiller et al., BiXT (arXiv 2402.12138), figure 2 and section 2.3.
    """

    def __init__(self, cross: nn.Module, self_attention: list[nn.Module]):
        super().__init__()
        self.cross = cross
        self.self_attention = nn.Sequential(*self_attention)

    def forward(
        self, latents: Tensor, tokens: Tensor, *, return_attention: bool = False, overwrite: bool = False
    ) -> tuple[Tensor, Tensor, AttentionMaps | None]:
        """Update ``(B or 1, M, latent_dim)`` latents and ``(B, N, token_dim)`` tokens.

        ``overwrite`` is of :class:`BidirectionalCross`; other cross layers leave the tokens' memory alone.
        """
        options = {"overwrite": overwrite} if isinstance(self.cross, BidirectionalCross) else {}
        latents, tokens, maps = self.cross(latents, tokens, return_attention=return_attention, **options)
        return self.self_attention(latents), tokens, maps
