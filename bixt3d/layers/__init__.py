"""Building blocks of BiXT: positional encoding, attention, transformer blocks and affine grouping."""

from .affine_grouping import AffineGrouping
from .attention import BidirectionalCrossAttention, CrossAttention, SelfAttention
from .blocks import (
    EncoderBlock,
    LatentSelfAttention,
    SequentialCross,
    bidirectional_cross,
    iterative_cross,
    sequential_cross,
)
from .cross import BidirectionalCross, LatentUpdate
from .pointwise import LinearNormAct, PointwiseResidual
from .positional import PointTokenizer, SinusoidalEncoding
from .propagation import FeaturePropagation
from .refinement import GroupRefinement
from .residual import MLP, DropPath, LayerScale

__all__ = [
    "MLP",
    "AffineGrouping",
    "BidirectionalCross",
    "BidirectionalCrossAttention",
    "CrossAttention",
    "DropPath",
    "EncoderBlock",
    "FeaturePropagation",
    "GroupRefinement",
    "LatentSelfAttention",
    "LatentUpdate",
    "LayerScale",
    "LinearNormAct",
    "PointTokenizer",
    "PointwiseResidual",
    "SelfAttention",
    "SequentialCross",
    "SinusoidalEncoding",
    "bidirectional_cross",
    "iterative_cross",
    "sequential_cross",
]
