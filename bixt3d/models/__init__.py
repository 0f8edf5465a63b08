"""BiXT models for point clouds, and PointMLP as their baseline."""

from .classifier import BiXTClassifier
from .decoder import PointMLPDecoder
from .encoder import BiXTEncoder
from .outputs import EncoderOutput, Level
from .pointmlp import PointMLPClassifier, PointMLPEncoder, PointMLPSegmenter
from .segmenter import BiXTSegmenter
from .variants import bixt_grouping, bixt_hierarchy, bixt_naive, bixt_seg_encdec, bixt_seg_naive

__all__ = [
    "BiXTClassifier",
    "BiXTEncoder",
    "BiXTSegmenter",
    "EncoderOutput",
    "Level",
    "PointMLPClassifier",
    "PointMLPDecoder",
    "PointMLPEncoder",
    "PointMLPSegmenter",
    "bixt_grouping",
    "bixt_hierarchy",
    "bixt_naive",
    "bixt_seg_encdec",
    "bixt_seg_naive",
]
