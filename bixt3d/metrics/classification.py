"""Accuracy over a whole split, never an average of batch averages; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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

    picture = "confusion.png"

    @property
    def overall_accuracy(self) -> float:
        """Share of clouds classified correctly, in [0, 1]."""
        return int(self.confusion.diagonal().sum()) / int(self.confusion.sum())

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

    def tables(self) -> dict[str, list[list]]:
        """Return the rows of ``confusion.csv`` and ``per_class.csv``, headings first."""
        counts = self.confusion.tolist()
        confusion = [["truth \\ predicted", *self.classes]]
        confusion += [[name, *row] for name, row in zip(self.classes, counts, strict=True)]
        per_class = [["class", "clouds", "correct", "recall_percent", "most_confused_with"]]
        for i, (name, row) in enumerate(zip(self.classes, counts, strict=True)):
            others = [(count, other) for other, count in enumerate(row) if other != i]
            worst = max(others, default=(0, 0))
            confused = f"{self.classes[worst[1]]} ({worst[0]})" if worst[0] else ""
            recall = f"{100 * row[i] / sum(row):.2f}" if sum(row) else ""
            per_class.append([name, sum(row), row[i], recall, confused])
        return {"confusion.csv": confusion, "per_class.csv": per_class}

    def draw(self, path: Path, title: str) -> None:
        """Draw the confusion matrix as a PNG, each row in percent of its class, with the counts."""
        from matplotlib.figure import Figure

        percent = 100 * self.confusion.double() / self.confusion.sum(dim=1, keepdim=True).clamp(min=1)
        n = len(self.classes)
        size = max(5.0, 0.28 * n + 2)
        figure = Figure(figsize=(size + 1, size), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(percent.numpy(), cmap="Blues", vmin=0, vmax=100)
        axes.set_xticks(range(n), self.classes, rotation=90, fontsize=8)
        axes.set_yticks(range(n), self.classes, fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("truth")
        axes.set_title(title, fontsize=9)
        for i, j in (self.confusion > 0).nonzero().tolist():
            axes.text(
                j,
                i,
                str(int(self.confusion[i, j])),
                ha="center",
                va="center",
                fontsize=6 if n > 15 else 8,
                color="white" if percent[i, j] > 55 else "black",
            )
        figure.colorbar(image, ax=axes, shrink=0.7, label="% of the class")
        figure.savefig(path, dpi=150)


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
