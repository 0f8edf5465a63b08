"""BiXT models for point clouds, and baselines for comparison."""

from .classifier import BiXTClassifier
from .decoder import PointMLPDecoder
from .encoder import BiXTEncoder
from .outputs import EncoderOutput, Level
from .pointmlp import PointMLPClassifier, PointMLPEncoder, PointMLPSegmenter
from .pointnet import PointNet2Classifier, PointNet2Encoder
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
    "PointNet2Classifier",
    "PointNet2Encoder",
    "bixt_grouping",
    "bixt_hierarchy",
    "bixt_naive",
    "bixt_seg_encdec",
    "bixt_seg_naive",
]
