"""Tasks: the prediction, loss and meter of a training run, and the figure that selects the best checkpoint."""

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
        parts: part names; not used, but passed to every task.
        label_smoothing: probability mass spread evenly over **all** classes (torch's convention).
            PointMLP spreads 0.2 over the *other* 39 classes of ModelNet40, which is ``0.2 * 40 / 39`` here.
        class_weights: weights of the classes in the loss: one number per class, in label order; or ``"balanced"``
            for ``clouds / (classes * clouds of the class)``, counted over the training split and the classes in it,
            so that all classes have the same total weight; None for no weighting.
        selects: the figure that selects the best checkpoint: ``"OA"``, or ``"mAcc"``, in which small classes count
            as much as large ones; None for the class attribute, here ``"OA"``.

    Raises:
        ValueError: ``label_smoothing`` is outside [0, 1), the figure is unknown, or the weights are not one number of
            at least 0 per class, or all 0.
    """

    # defaults for subclasses that do not set them
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
        """Compute the balanced weights, if asked for, from the labels of the training split."""
        if self.class_weights == BALANCED:
            counts = torch.bincount(torch.as_tensor(labels), minlength=len(self.classes)).float()
            held = counts > 0
            self.weights = torch.where(held, counts.sum() / (held.sum() * counts.clamp(min=1)), 1.0)

    def model_arguments(self) -> dict[str, int]:
        """Return the model's keyword ``num_classes``."""
        return {"num_classes": len(self.classes)}

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return ``(B, classes)`` logits and ``(B,)`` labels, or ``(B, classes)`` target probabilities if mixed."""
        return model(batch.points), batch.labels if batch.targets is None else batch.targets

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats, in float32, weighted by class if there are class weights.

        For a cloud mixed from A and B the loss is ``share_A CE(A) + share_B CE(B)``. With class weights, the sum is
        divided by the number of clouds for mixed clouds, else by the sum of their weights (torch's convention).

        Raises:
            ValueError: ``class_weights`` is ``"balanced"`` and :meth:`count` was not called.
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

    The best checkpoint is selected by instance mIoU, in the first of the conventions.

    Args:
        classes: category names in label order.
        parts: part names ``"class/part"`` in label order.
        label_smoothing: probability mass spread evenly over all parts (torch's convention).
        conventions: conventions of part IoU to report, ``"A"``, ``"B"`` or ``"C"``, whose figures are not
            comparable with each other; see :class:`~bixt3d.metrics.parts.PartResult`.

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
        """Return the model's keywords ``num_parts`` and ``num_categories``."""
        return {"num_parts": len(self.parts), "num_categories": len(self.classes)}

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, PartTarget]:
        """Return ``(B, N, parts)`` logits and the ground truth of the points.

        Raises:
            ValueError: the clouds are mixed, so they have no single category.
        """
        if batch.targets is not None:
            raise ValueError(
                "augment: mixing clouds is for classification; choose an augmentation that does not mix."
            )
        logits = model(batch.points, batch.labels)
        return logits, PartTarget(batch.part_labels, batch.labels, batch.index)

    def loss(self, prediction: Tensor, target: PartTarget) -> Tensor:
        """Return the mean cross-entropy over labelled points, in nats, in float32; 0 if there are none."""
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
