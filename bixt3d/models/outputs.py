"""Outputs of encoders, which heads and decoders read."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..layers.attention import AttentionMaps


class LayerAttention(NamedTuple):
    """Attention maps of one layer, and the positions of its tokens.

    Attributes:
        maps: attention weights of the layer, after the softmax.
        centers: ``(B, S, 3)`` xyz of the layer's S tokens.
    """

    maps: AttentionMaps
    centers: Tensor


class Level(NamedTuple):
    """One level of a hierarchy of points.

    Attributes:
        tokens: ``(B, S, C)``.
        centers: ``(B, S, 3)`` xyz of the tokens.
    """

    tokens: Tensor
    centers: Tensor


class EncoderOutput(NamedTuple):
    """Output of an encoder.

    Attributes:
        latents: ``(B, M, dim)``.
        tokens: ``(B, S, token_dims[-1])``; if the last layer is one-sided, the tokens that it read.
        centers: ``(B, S, 3)`` xyz of the tokens.
        attention: one entry per layer, or None if not requested.
        levels: tokens before the first layer and after each layer, or None if not requested.
    """

    latents: Tensor
    tokens: Tensor
    centers: Tensor
    attention: list[LayerAttention] | None
    levels: list[Level] | None = None
