"""Accuracy over a whole split, never an average of batch averages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix


@dataclass(frozen=True)
class ClassificationResult:
    """Confusion matrix of a split and what follows from it.

    Attributes:
        confusion: ``(classes, classes)`` int64 counts, row = truth, column = prediction.
        classes: class names in order.
    """

    confusion: Tensor
    classes: tuple[str, ...]

    @property
    def overall_accuracy(self) -> float:
        """Share of clouds classified correctly, in [0, 1]."""
        return float(self.confusion.diagonal().sum() / self.confusion.sum())

    @property
    def recalls(self) -> Tensor:
        """Recall of each class, ``(classes,)`` float64; NaN for a class that the split does not hold."""
        return self.confusion.diagonal().double() / self.confusion.sum(dim=1)

    @property
    def mean_class_accuracy(self) -> float:
        """Mean recall over the classes that the split holds, in [0, 1]."""
        return float(self.recalls.nanmean())

    def summary(self) -> dict[str, float]:
        """Return the two figures that papers report, in percent: ``OA`` and ``mAcc``."""
        return {"OA": 100 * self.overall_accuracy, "mAcc": 100 * self.mean_class_accuracy}


class ClassificationMeter(nn.Module):
    """Gather predictions of a split and sum them up once; exact over several devices.

    Args:
        classes: class names in label order.
    """

    def __init__(self, classes: tuple[str, ...]):
        super().__init__()
        self.classes = classes
        # task="multiclass" of torchmetrics refuses a single class; two rows then hold one class and zeros
        self.confusion = MulticlassConfusionMatrix(max(len(classes), 2), validate_args=False)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count ``(B, classes)`` logits against ``(B,)`` labels."""
        self.confusion.update(logits.argmax(dim=1), labels)

    def compute(self) -> ClassificationResult:
        """Return the result over everything counted, on all devices.

        Raises:
            ValueError: nothing was counted.
        """
        confusion = self.confusion.compute().cpu().to(torch.int64)[: len(self.classes), : len(self.classes)]
        if confusion.sum() == 0:
            raise ValueError("split: expected at least one cloud to evaluate on, got none.")
        return ClassificationResult(confusion, self.classes)
