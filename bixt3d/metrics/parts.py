"""Part IoU over a whole split, in the three conventions of the literature, which are not comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .rows import Rows

CONVENTIONS = ("A", "B", "C")
# Label of points that are not counted, such as padding.
IGNORED = -1


class PartTarget(NamedTuple):
    """Ground truth of a batch.

    Attributes:
        part_labels: ``(B, N)`` int64; :data:`IGNORED` for points that are not counted.
        categories: ``(B,)`` int64, the category of each row.
        clouds: ``(B,)`` int64, the cloud that each row belongs to. Rows of the same cloud are counted together.
    """

    part_labels: Tensor
    categories: Tensor
    clouds: Tensor


@dataclass(frozen=True)
class PartResult:
    """Numbers of points by cloud and part, and the metrics computed from them.

    "Absent twice" means that a part occurs neither in the truth nor in the prediction of a cloud.

    ========== =========================== ========================= ============ =======================
    convention prediction                  parts averaged            absent twice absent, but predicted
    ========== =========================== ========================= ============ =======================
    A          best part of the category   all of the category       1            0
    B          best of all parts           all of the category       1            0
    C          best of all parts           those in the cloud's      skipped      skipped
                                           truth
    ========== =========================== ========================= ============ =======================

    A part's IoU in a cloud is ``overlap / (truth + predicted - overlap)``, in points.

    Attributes:
        categories: ``(n,)`` int64, category of each cloud.
        truth: ``(n, P)`` int64, number of points of each part.
        predicted: ``(2, n, P)`` int64, number of points predicted as each part; first for the best part of the
            category, then for the best of all parts.
        overlap: ``(2, n, P)`` int64, number of points correctly predicted as each part, in the same order.
        classes: category names in label order.
        parts: part names ``"class/part"`` in label order.
        conventions: conventions to report.

    Source: Qi et al., PointNet++ (2017) for A; Wang et al., DGCNN (2019) for B; the public code of Ma et
    al., PointMLP (2022) for C.
    """

    categories: Tensor
    truth: Tensor
    predicted: Tensor
    overlap: Tensor
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    conventions: tuple[str, ...] = ("A", "C")

    picture = "parts.png"

    def part_ious(self, convention: str) -> Tensor:
        """Return the IoU of each part in each cloud, ``(n, P)`` float64; NaN for parts that are not averaged."""
        check_conventions([convention])
        which = 0 if convention == "A" else 1
        overlap = self.overlap[which].double()
        union = self.truth + self.predicted[which] - self.overlap[which]
        iou = torch.where(union > 0, overlap / union.clamp(min=1), 1.0)
        averaged = self.truth > 0
        if convention != "C":
            averaged = owners(self.parts, self.classes)[self.categories] & averaged.any(dim=1, keepdim=True)
        return iou.masked_fill(~averaged, torch.nan)

    def cloud_ious(self, convention: str) -> Tensor:
        """Return the mean IoU over parts of each cloud, ``(n,)`` float64 in [0, 1]; NaN if no point is counted."""
        return self.part_ious(convention).nanmean(dim=1)

    def instance_miou(self, convention: str) -> float:
        """Return the mean IoU over clouds, in [0, 1]."""
        return float(self.cloud_ious(convention).nanmean())

    def category_mious(self, convention: str) -> Tensor:
        """Return the mean IoU over the clouds of each category, ``(classes,)`` float64; NaN if it has no clouds."""
        ious = self.cloud_ious(convention)
        means = [ious[self.categories == c].nanmean() for c in range(len(self.classes))]
        return torch.stack(means)

    def class_miou(self, convention: str) -> float:
        """Return the mean over categories of their mean IoU, in [0, 1]."""
        return float(self.category_mious(convention).nanmean())

    def summary(self) -> dict[str, float]:
        """Return instance and class mIoU in each convention, in percent."""
        figures = {}
        for convention in self.conventions:
            figures[f"instance mIoU {convention}"] = 100 * self.instance_miou(convention)
            figures[f"class mIoU {convention}"] = 100 * self.class_miou(convention)
        return figures

    def tables(self) -> dict[str, list[list]]:
        """Return the rows of ``per_category.csv`` and ``per_part.csv``, headings first, in percent."""
        by_category = [self.category_mious(c) for c in self.conventions]
        categories = [["category", "clouds", *(f"mIoU_{c}_percent" for c in self.conventions)]]
        for i, name in enumerate(self.classes):
            count = int((self.categories == i).sum())
            categories.append([name, str(count), *(_percent(means[i]) for means in by_category)])
        by_part = [self.part_ious(c).nanmean(dim=0) for c in self.conventions]
        points, total = self.truth.sum(dim=0), self.truth.sum().clamp(min=1)
        parts = [["part", "share_of_points_percent", *(f"mean_IoU_{c}_percent" for c in self.conventions)]]
        for i, name in enumerate(self.parts):
            parts.append([name, _percent(points[i] / total), *(_percent(means[i]) for means in by_part)])
        return {"per_category.csv": categories, "per_part.csv": parts}

    def draw(self, path: Path, title: str) -> None:
        """Draw the mean IoU of each part in each convention as a PNG; parts that no cloud has get no bar."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 1.5 + 0.3 * len(self.parts)), layout="constrained")
        axes = figure.subplots()
        height = 0.8 / len(self.conventions)
        for i, convention in enumerate(self.conventions):
            means = (100 * self.part_ious(convention).nanmean(dim=0)).tolist()
            places = [n + (i - (len(self.conventions) - 1) / 2) * height for n in range(len(self.parts))]
            axes.barh(places, means, height=height, label=f"convention {convention}")
        axes.set_yticks(range(len(self.parts)), self.parts, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("mean IoU over clouds, %")
        axes.set_title(title, fontsize=8, wrap=True)
        axes.legend(loc="lower left", fontsize=8)
        figure.savefig(path, dpi=150)


class PartMeter(nn.Module):
    """Count points by cloud and part; the result is exact, also over several devices and clouds cut into pieces.

    Args:
        classes: category names in label order.
        parts: part names ``"class/part"`` in label order.
        conventions: conventions to report, from :data:`CONVENTIONS`.

    Raises:
        ValueError: a part belongs to no category, or a category has no parts.
    """

    def __init__(
        self, classes: tuple[str, ...], parts: tuple[str, ...], *, conventions: Sequence[str] = ("A", "C")
    ):
        super().__init__()
        self.classes = classes
        self.parts = parts
        self.conventions = tuple(conventions)
        self.rows = Rows(2 + 5 * len(parts))
        self.register_buffer("allowed", owners(parts, classes), persistent=False)

    def update(self, logits: Tensor, target: PartTarget) -> None:
        """Add predictions: logits ``(B, N, parts)`` and their ground truth."""
        outside = ~self.allowed[target.categories]  # type: ignore[index]
        guesses = (
            logits.masked_fill(outside.unsqueeze(1), -torch.inf).argmax(dim=-1),
            logits.argmax(dim=-1),
        )
        truth, counted = target.part_labels, target.part_labels != IGNORED
        counts = [self._count(truth, counted)]
        for guess in guesses:
            counts += [self._count(guess, counted), self._count(truth, truth == guess)]
        self.rows.update(torch.cat((target.clouds[:, None], target.categories[:, None], *counts), dim=1))

    def _count(self, labels: Tensor, counted: Tensor) -> Tensor:
        """Count the labels ``(B, N)`` of each row, ``(B, P)`` int64."""
        width = len(self.parts)
        rows = torch.arange(len(labels), device=labels.device)[:, None] * width
        return torch.bincount((labels + rows)[counted], minlength=len(labels) * width).view(-1, width)

    def compute(self) -> PartResult:
        """Return the result over all predictions on all devices.

        Raises:
            ValueError: there are no predictions.
        """
        rows = self.rows.gathered()
        if len(rows) == 0:
            raise ValueError("split: expected at least one cloud to evaluate on, got none.")
        index, place = rows[:, 0].unique(return_inverse=True)
        categories = torch.empty_like(index)
        categories[place] = rows[:, 1]
        counts = torch.zeros(len(index), rows.shape[1] - 2, dtype=torch.int64)
        counts.index_add_(0, place, rows[:, 2:])
        truth, *pairs = counts.split(len(self.parts), dim=1)
        predicted, overlap = torch.stack(pairs[::2]), torch.stack(pairs[1::2])
        return PartResult(categories, truth, predicted, overlap, self.classes, self.parts, self.conventions)


def owners(parts: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Return which parts belong to which category, ``(classes, parts)`` bool, from part names ``"class/part"``.

    Raises:
        ValueError: a part belongs to no category, or a category has no parts.
    """
    table = torch.tensor([[part.rpartition("/")[0] == name for part in parts] for name in classes])
    table = table.view(len(classes), len(parts)).bool()
    for p in range(len(parts)):
        if not table[:, p].any():
            raise ValueError(
                f"parts: {parts[p]!r} belongs to none of the categories; expected names 'class/part' with a class "
                f"of {', '.join(sorted(classes))}."
            )
    for c in range(len(classes)):
        if not table[c].any():
            raise ValueError(
                f"parts: the category {classes[c]!r} has no parts; expected at least one, {classes[c]}/..."
            )
    return table


def check_conventions(conventions: Sequence[str]) -> None:
    """Raise ValueError unless there are one or more conventions, all of :data:`CONVENTIONS`."""
    unknown = [c for c in conventions if c not in CONVENTIONS]
    if unknown or not conventions:
        raise ValueError(
            f"conventions: expected some of {', '.join(CONVENTIONS)}, got {unknown[0] if unknown else 'none'!r}."
        )


def _percent(share: Tensor) -> str:
    return "" if share.isnan() else f"{100 * float(share):.2f}"
