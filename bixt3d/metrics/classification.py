"""Classification accuracy over a whole split, not averaged over batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.functional.classification import binary_calibration_error

from .rows import Rows

BINS = 15  # number of bins of the calibration error


@dataclass(frozen=True)
class ClassificationResult:
    """Confusion matrix and predictions of a split, and the metrics computed from them.

    Attributes:
        confusion: ``(classes, classes)`` int64 counts; rows are the truth, columns the prediction.
        classes: class names in label order.
        predicted: ``(n, 2)`` int64, the most probable and the second most probable class of each cloud, in the order
            of the split. The second is -1 if there is only one class. None if unknown.
        probabilities: ``(n, 2)`` float32, the predicted probabilities of these classes; None if unknown.
        truth: ``(n,)`` int64, the true class of each cloud; None if unknown.
    """

    confusion: Tensor
    classes: tuple[str, ...]
    predicted: Tensor | None = None
    probabilities: Tensor | None = None
    truth: Tensor | None = None

    picture = "confusion.png"

    @property
    def overall_accuracy(self) -> float:
        """Share of correctly classified clouds, in [0, 1]."""
        return int(self.confusion.diagonal().sum()) / int(self.confusion.sum())

    @property
    def recalls(self) -> Tensor:
        """Recall of each class, ``(classes,)`` float64; NaN for a class without clouds in the split."""
        return self.confusion.diagonal().double() / self.confusion.sum(dim=1)

    @property
    def mean_class_accuracy(self) -> float:
        """Mean recall over the classes that have clouds in the split, in [0, 1]."""
        return float(self.recalls.nanmean())

    def summary(self) -> dict[str, float]:
        """Return overall and mean class accuracy in percent, as ``OA`` and ``mAcc``."""
        return {"OA": 100 * self.overall_accuracy, "mAcc": 100 * self.mean_class_accuracy}

    def details(self) -> dict[str, float]:
        """Return measures of calibration in percent, or nothing if the probabilities are unknown.

        ``probability where right`` and ``probability where wrong`` are the mean probabilities of the predicted class
        over correctly and wrongly classified clouds, omitted if there are no such clouds. ``calibration error`` is the
        expected calibration error: the mean absolute difference between confidence and accuracy over 15 bins of equal
        width, weighted by the number of clouds in each.

        Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
        """
        if self.predicted is None or self.probabilities is None or self.truth is None:
            return {}
        sure, right = self.probabilities[:, 0].contiguous(), self.predicted[:, 0] == self.truth
        found = {
            f"probability where {name}": 100 * float(sure[which].double().mean())
            for name, which in (("right", right), ("wrong", ~right))
            if which.any()
        }
        # calibration of the most probable class alone is a binary problem: right or wrong
        error = binary_calibration_error(sure, right.long(), n_bins=BINS, norm="l1")
        return found | {"calibration error": 100 * float(error)}

    def per_cloud(self, names: Sequence[str]) -> dict[str, list[list]]:
        """Return the rows of ``predictions.csv``, headings first, for clouds with the given names.

        Returns nothing if there is not one prediction per name, as with a custom task that evaluates pieces of clouds.

        Args:
            names: names of the clouds, in the order of the split.
        """
        if self.predicted is None or self.probabilities is None or self.truth is None:
            return {}
        if len(self.truth) != len(names):
            return {}
        table: list[list] = [["cloud", "truth", "predicted", "probability", "second", "probability_second"]]
        for name, truth, (first, second), (sure, less) in zip(
            names, self.truth.tolist(), self.predicted.tolist(), self.probabilities.tolist(), strict=True
        ):
            other = [self.classes[second], f"{less:.6f}"] if second >= 0 else ["", ""]
            table.append([name, self.classes[truth], self.classes[first], f"{sure:.6f}", *other])
        return {"predictions.csv": table}

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
    """Collect the predictions of a split; the result is exact, also over several devices.

    Args:
        classes: class names in label order.
    """

    def __init__(self, classes: tuple[str, ...]):
        super().__init__()
        self.classes = classes
        # torchmetrics rejects a single class, so the matrix then has a second one, which stays zero
        self.confusion = MulticlassConfusionMatrix(max(len(classes), 2), validate_args=False)
        # position on this device, truth, two best classes and their probabilities, all exact in float32
        self.rows = Rows(6, torch.float32)
        self._counted = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add predictions: logits ``(B, classes)`` and labels ``(B,)``."""
        best = logits.argmax(dim=1)
        self.confusion.update(best, labels)
        probabilities = logits.float().softmax(dim=1).nan_to_num()
        # not topk, which may break ties differently from the argmax in the confusion matrix
        rest = probabilities.scatter(1, best[:, None], -1.0)
        less, second = rest.max(dim=1)
        sure = probabilities.gather(1, best[:, None])[:, 0]
        place = torch.arange(self._counted, self._counted + len(best), device=logits.device)
        self._counted += len(best)
        second = second.masked_fill(less < 0, -1)
        self.rows.update(torch.stack([x.float() for x in (place, labels, best, second, sure, less)], dim=1))

    def compute(self) -> ClassificationResult:
        """Return the result over all predictions on all devices.

        Raises:
            ValueError: there are no predictions.
        """
        confusion = self.confusion.compute().cpu().to(torch.int64)[: len(self.classes), : len(self.classes)]
        if confusion.sum() == 0:
            raise ValueError("split: expected at least one cloud to evaluate on, got none.")
        rows = self.rows.gathered()
        if len(rows) == 0:  # a custom meter that updates only the confusion matrix
            return ClassificationResult(confusion, self.classes)
        # devices take clouds in turn, but the rows are ordered by device
        rows = rows[rows[:, 0].argsort(stable=True)]
        whole = rows[:, 1:4].long()
        return ClassificationResult(
            confusion,
            self.classes,
            predicted=whole[:, 1:],
            probabilities=rows[:, 4:].clamp(0, 1),
            truth=whole[:, 0],
        )
