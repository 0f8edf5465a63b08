"""What a training run is about: its loss, its meter and the figure that selects a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .metrics.classification import ClassificationMeter
from .metrics.parts import IGNORED, PartMeter, PartTarget, check_conventions, owners

SELECTING = ("OA", "mAcc")
BALANCED = "balanced"


class Classification:
    """Shape classification by cross-entropy.

    Args:
        classes: class names in label order.
        parts: part names; every task is given them, this one has no use for them.
        label_smoothing: share of the target spread evenly over **all** classes (torch's convention).
            PointMLP spreads 0.2 over the *other* 39 classes of ModelNet40, which is ``0.2 * 40 / 39`` here.
        class_weights: how much the clouds of each class count in the loss: a number for each class, in label order;
            or ``"balanced"``, clouds of the training split / (classes that it holds * clouds of the class), so that
            every class counts as much as any other; None for all clouds alike.
        selects: the figure that selects a model: ``"OA"``, or ``"mAcc"``, in which small classes count as much as
            large ones; None for that of the class, here ``"OA"``.

    Raises:
        ValueError: ``label_smoothing`` outside [0, 1), an unknown figure, or weights that are not one number of at
            least 0 for each class, some above.
    """

    # what holds for a task derived from this one that does not say
    selects = "OA"
    class_weights: str | Sequence[float] | None = None
    weights: Tensor | None = None
    eval_sampling = ("first",)

    def __init__(
        self,
        classes: tuple[str, ...],
        parts: tuple[str, ...] = (),
        *,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] | None = None,
        selects: str | None = None,
    ):
        _check_smoothing(label_smoothing)
        if selects not in (None, *SELECTING):
            raise ValueError(f"selects: expected one of {', '.join(SELECTING)}, got {selects!r}.")
        _check_weights(class_weights, len(classes))
        self.classes = classes
        self.label_smoothing = label_smoothing
        if selects is not None:
            self.selects = selects
        self.class_weights = class_weights
        listed = class_weights is not None and not isinstance(class_weights, str)
        self.weights = torch.tensor(class_weights, dtype=torch.float32) if listed else None

    def count(self, labels: Sequence[int]) -> None:
        """Take note of the training split: its labels, from which balanced weights follow."""
        if self.class_weights == BALANCED:
            counts = torch.bincount(torch.as_tensor(labels), minlength=len(self.classes)).float()
            held = counts > 0
            self.weights = torch.where(held, counts.sum() / (held.sum() * counts.clamp(min=1)), 1.0)

    def model_arguments(self) -> dict[str, int]:
        """Return the number of classes."""
        return {"num_classes": len(self.classes)}

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return ``(B, classes)`` logits and ``(B,)`` labels, or ``(B, classes)`` targets of mixed clouds."""
        return model(batch.points), batch.labels if batch.targets is None else batch.targets

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats, in float32, weighted by class where there are weights.

        Of a cloud that is mixed of A and B it is ``share_A CE(A) + share_B CE(B)``; the weighted mean is then over
        clouds, else over the weights of the batch (torch's convention).

        Raises:
            ValueError: weights are to be balanced, and :meth:`count` was not called.
        """
        if self.class_weights == BALANCED and self.weights is None:
            raise ValueError(
                "class_weights: balanced weights need the labels of training; call count(labels) first."
            )
        weights = None if self.weights is None else self.weights.to(prediction.device)
        return F.cross_entropy(prediction.float(), target, weights, label_smoothing=self.label_smoothing)

    def meter(self) -> ClassificationMeter:
        """Return an empty meter for overall and mean class accuracy."""
        return ClassificationMeter(self.classes)


class PartSegmentation:
    """Part segmentation by cross-entropy over the parts of all categories.

    The figure that selects is the instance mIoU in the first of the conventions.

    Args:
        classes: category names in label order.
        parts: part names ``"class/part"`` in label order.
        label_smoothing: share of the target spread evenly over all parts (torch's convention).
        conventions: of part IoU, which do not compare: ``"A"``, ``"B"``, ``"C"``, see
            :class:`~bixt3d.metrics.parts.PartResult`.

    Raises:
        ValueError: there are no parts, a part belongs to no category, ``label_smoothing`` is outside [0, 1)
            or a convention is unknown or missing.
    """

    eval_sampling = ("all", "first")

    def __init__(
        self,
        classes: tuple[str, ...],
        parts: tuple[str, ...],
        *,
        label_smoothing: float = 0.0,
        conventions: Sequence[str] = ("A", "C"),
    ):
        _check_smoothing(label_smoothing)
        if not parts:
            raise ValueError(
                "parts: the data set has no part labels; expected one label per point (pid in HDF5 files, and for "
                "files in folders data.part_names=[class/part, ...])."
            )
        check_conventions(conventions)
        owners(parts, classes)  # every part has a category
        self.classes = tuple(classes)
        self.parts = tuple(parts)
        self.label_smoothing = label_smoothing
        self.conventions = tuple(conventions)
        self.selects = f"instance mIoU {self.conventions[0]}"

    def model_arguments(self) -> dict[str, int]:
        """Return the numbers of parts and of categories."""
        return {"num_parts": len(self.parts), "num_categories": len(self.classes)}

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, PartTarget]:
        """Return ``(B, N, parts)`` logits and the truth of each point.

        Raises:
            ValueError: the clouds are mixed, so they have no one category.
        """
        if batch.targets is not None:
            raise ValueError(
                "augment: mixing clouds is for classification; choose an augmentation that does not mix."
            )
        logits = model(batch.points, batch.labels)
        return logits, PartTarget(batch.part_labels, batch.labels, batch.index)

    def loss(self, prediction: Tensor, target: PartTarget) -> Tensor:
        """Return the mean cross-entropy over labelled points, in nats, in float32; 0 where there are none."""
        total = F.cross_entropy(
            prediction.float().flatten(0, 1),
            target.part_labels.flatten(),
            label_smoothing=self.label_smoothing,
            ignore_index=IGNORED,
            reduction="sum",
        )
        return total / (target.part_labels != IGNORED).sum().clamp(min=1)

    def meter(self) -> PartMeter:
        """Return an empty meter for part IoU."""
        return PartMeter(self.classes, self.parts, conventions=self.conventions)


def _check_weights(weights: str | Sequence[float] | None, classes: int) -> None:
    if weights is None or weights == BALANCED:
        return
    numbers = not isinstance(weights, str) and all(
        isinstance(w, int | float) and 0 <= w < math.inf for w in weights
    )
    if not numbers or len(weights) != classes or not any(weights):
        raise ValueError(
            f"class_weights: expected {BALANCED}, null or {classes} numbers of at least 0, one for each class, got "
            f"{weights!r}."
        )


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing: expected at least 0 and below 1, got {label_smoothing}.")
