"""From a checkpoint to figures, on clean and on corrupted clouds, and their reports."""

from .evaluate import evaluate_checkpoint, evaluate_robustness

__all__ = ["evaluate_checkpoint", "evaluate_robustness"]
