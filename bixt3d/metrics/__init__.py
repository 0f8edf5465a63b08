"""Accuracy of a classifier and part IoU, each over a whole split."""

from .classification import ClassificationMeter, ClassificationResult
from .parts import PartMeter, PartResult, PartTarget

__all__ = ["ClassificationMeter", "ClassificationResult", "PartMeter", "PartResult", "PartTarget"]
