"""From a checkpoint and a file to labels, pictures' content and exported models."""

from .loading import load
from .predictor import Predictor

__all__ = ["Predictor", "load"]
