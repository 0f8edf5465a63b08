"""BiXT models for point clouds."""

from .classifier import BiXTClassifier
from .encoder import BiXTEncoder, EncoderOutput

__all__ = ["BiXTClassifier", "BiXTEncoder", "EncoderOutput"]
