"""Build the BiXT models of `cfgs/model/` with one call each."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..layers import GroupRefinement, PointTokenizer
from .classifier import BiXTClassifier
from .decoder import PointMLPDecoder
from .encoder import BiXTEncoder
from .segmenter import BiXTSegmenter


def bixt_naive(num_classes: int, *, in_channels: int = 3, **encoder: Any) -> BiXTClassifier:
    """Build BiXT-Ti with one token per point: 12 layers, 64 latents, 14.8 million parameters.

    Args:
        num_classes: number of classes.
        in_channels: channels of a point, 3 for xyz, 6 for xyz and unit normal.
        encoder: arguments of :class:`~bixt3d.models.BiXTEncoder` that override the defaults, such as
            ``depth=4, dim=128``.

    Returns:
        An untrained model: points ``(B, N, in_channels)`` in the unit sphere -> logits ``(B, num_classes)``.

    Raises:
        TypeError: the encoder has no such argument.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 3.2 and appendix C.1.
    """
    built = BiXTEncoder(**encoder)
    return BiXTClassifier(
        num_classes, tokenizer=PointTokenizer(built.token_dim, in_channels=in_channels), encoder=built
    )


def bixt_grouping(num_classes: int, *, in_channels: int = 3, **encoder: Any) -> BiXTClassifier:
    """Build :func:`bixt_naive` with affine grouping in every layer, which keeps all points; 15.3 million parameters."""
    return bixt_naive(num_classes, in_channels=in_channels, **{"refinement": GroupRefinement, **encoder})


def bixt_hierarchy(num_classes: int, *, in_channels: int = 3, **encoder: Any) -> BiXTClassifier:
    """Build :func:`bixt_naive` with 4 layers, each of which halves the number of points; 5.3 million parameters."""
    halving = partial(GroupRefinement, reduction=2, width=128, blocks_before=1)
    return bixt_naive(num_classes, in_channels=in_channels, **{"depth": 4, "refinement": halving, **encoder})


def bixt_seg_naive(
    num_parts: int, num_categories: int = 1, *, in_channels: int = 3, **encoder: Any
) -> BiXTSegmenter:
    """Build BiXT-Ti for part segmentation: 12 two-sided layers and a linear head on the tokens.

    Args:
        num_parts: total number of parts of all categories (50 for ShapeNetPart).
        num_categories: number of categories (16 for ShapeNetPart). With one, the model needs no category.
        in_channels: channels of a point, 3 for xyz, 6 for xyz and unit normal.
        encoder: arguments of :class:`~bixt3d.models.BiXTEncoder` that override the defaults.

    Returns:
        An untrained model: points ``(B, N, in_channels)`` in the unit sphere and, with several categories, categories
        ``(B,)`` -> logits ``(B, N, num_parts)``.

    Raises:
        TypeError: the encoder has no such argument.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 3.2 and appendix C.1.
    """
    return BiXTSegmenter(num_parts, num_categories, **_tokens(in_channels, encoder), category_at="tokens")


def bixt_seg_encdec(
    num_parts: int, num_categories: int = 1, *, in_channels: int = 3, **encoder: Any
) -> BiXTSegmenter:
    """Build :func:`bixt_seg_naive` with 4 layers that each keep a quarter of the points, and PointMLP's decoder."""
    quartering = partial(GroupRefinement, num_neighbors=32, reduction=4, width=128, blocks_before=1)
    encoder = {"depth": 4, "refinement": quartering, **encoder}
    return BiXTSegmenter(
        num_parts,
        num_categories,
        **_tokens(in_channels, encoder),
        decoder=PointMLPDecoder,
        category_at="head",
    )


def _tokens(in_channels: int, encoder: dict[str, Any]) -> dict[str, Any]:
    built = BiXTEncoder(**{"dense": True, **encoder})
    return {
        "tokenizer": PointTokenizer(built.token_dim, in_channels=in_channels, scale=30.0),
        "encoder": built,
    }
