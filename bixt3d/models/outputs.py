"""What an encoder hands to the heads."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..layers.attention import AttentionMaps


class LayerAttention(NamedTuple):
    """Attention maps of one layer and where its tokens lie.

    Attributes:
        maps: the softmaxed attention of the layer.
        centers: ``(B, S, 3)`` xyz of the S tokens that the layer saw.
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
    """What the encoder hands to a head.

    Attributes:
        latents: ``(B, M, dim)``.
        tokens: ``(B, S, token_dims[-1])``; in a one-sided last layer they are those it read.
        centers: ``(B, S, 3)`` xyz of the tokens.
        attention: one entry a layer, or None where it was not asked for.
        levels: the tokens before the first layer and after each, or None where they were not asked for.
    """

    latents: Tensor
    tokens: Tensor
    centers: Tensor
    attention: list[LayerAttention] | None
    levels: list[Level] | None = None
