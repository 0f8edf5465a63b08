"""Transformer blocks of the BiXT encoder, and of the attention types it is compared with.

A *cross* layer connects the two streams: ``(latents, tokens) -> (latents, tokens, maps)``. An :class:`EncoderBlock`
adds self-attention of the latents. Each of the three ``*_cross`` functions builds the cross layer of one attention
type, to be named in a config.

Source: Hiller et al., BiXT (arXiv 2402.12138), section 2.3 and tables 1a and A1.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from .attention import AttentionMaps, SelfAttention
from .cross import BidirectionalCross, CrossUpdate, LatentUpdate
from .residual import Branch, ResidualMLP, norm


class LatentSelfAttention(nn.Module):
    """Self-attention and MLP over the latents, each with a norm and a residual.

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


class SequentialCross(nn.Module):
    """Two separate cross-attentions: latents attend to tokens, then tokens attend to the updated latents."""

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
    """Callable that builds the cross layer of a block. Configs use ``_partial_: true`` for it."""

    def __call__(self, latent_dim: int, token_dim: int, *, one_sided: bool, **options) -> nn.Module:
        """Build one cross layer."""


def bidirectional_cross(latent_dim: int, token_dim: int, *, one_sided: bool, **options) -> nn.Module:
    """Build the cross layer of BiXT: a :class:`BidirectionalCross`, or a :class:`LatentUpdate` if one-sided.

    Args:
        latent_dim, token_dim: widths of the two streams.
        one_sided: update only the latents, as in the last layer of a classifier.
        **options: options of :class:`BidirectionalCross`. A one-sided layer replaces ``backend="triton"``, which has
            no one-sided form, by None.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 2.3.
    """
    if one_sided:
        if options.get("backend") == "triton":
            options["backend"] = None
        return LatentUpdate(latent_dim, token_dim, **options)
    return BidirectionalCross(latent_dim, token_dim, **options)


def sequential_cross(latent_dim: int, token_dim: int, *, one_sided: bool, **options) -> nn.Module:
    """Build a sequential two-way cross layer: a :class:`SequentialCross`, or a :class:`LatentUpdate` if one-sided.

    For the arguments and the source, see :func:`bidirectional_cross`. In tables 1a and A1 of the paper, this is
    "sequential".
    """
    layer = LatentUpdate if one_sided else SequentialCross
    return layer(latent_dim, token_dim, **options)


def iterative_cross(latent_dim: int, token_dim: int, *, one_sided: bool, **options) -> nn.Module:
    """Build the cross-attention of a Perceiver: the latents attend to the tokens, which are never updated.

    For the arguments, see :func:`bidirectional_cross`. ``one_sided`` is accepted for the common signature and ignored.

    Source: as :func:`bidirectional_cross`; Jaegle et al., Perceiver (2021), section 3.2.
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

        ``overwrite`` is passed on to a :class:`BidirectionalCross`. Other cross layers never overwrite the tokens.
        """
        options = {"overwrite": overwrite} if type(self.cross) is BidirectionalCross else {}
        latents, tokens, maps = self.cross(latents, tokens, return_attention=return_attention, **options)
        return self.self_attention(latents), tokens, maps
