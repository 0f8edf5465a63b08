"""What a training run is about: its loss, its meter and the figure that selects a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .metrics.classification import ClassificationMeter
from .metrics.parts import IGNORED, PartMeter, PartTarget, check_conventions, owners


class Classification:
    """Shape classification by cross-entropy; the overall accuracy selects.

    Args:
        classes: class names in label order.
        parts: part names; every task is given them, this one has no use for them.
        label_smoothing: share of the target spread evenly over **all** classes (torch's convention).
            PointMLP spreads 0.2 over the *other* 39 classes of ModelNet40, which is ``0.2 * 40 / 39`` here.

    Raises:
        ValueError: ``label_smoothing`` outside [0, 1).
    """

    selects = "OA"
    eval_sampling = ("first",)

    def __init__(
        self, classes: tuple[str, ...], parts: tuple[str, ...] = (), *, label_smoothing: float = 0.0
    ):
        _check_smoothing(label_smoothing)
        self.classes = classes
        self.label_smoothing = label_smoothing

    def model_arguments(self) -> dict[str, int]:
        """Return the number of classes."""
        return {"num_classes": len(self.classes)}

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return ``(B, classes)`` logits and ``(B,)`` labels, or ``(B, classes)`` targets of mixed clouds."""
        return model(batch.points), batch.labels if batch.targets is None else batch.targets

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats, in float32.

        Of a cloud that is mixed of A and B it is ``share_A CE(A) + share_B CE(B)``.
        """
        return F.cross_entropy(prediction.float(), target, label_smoothing=self.label_smoothing)

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


def _check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing: expected at least 0 and below 1, got {label_smoothing}.")
