"""What a training run is about: its loss, its meter and the figure that selects a model."""

from __future__ import annotations

from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from .metrics import ClassificationMeter


class Result(Protocol):
    """Outcome of one evaluation."""

    def summary(self) -> dict[str, float]:
        """Return named figures, in percent; the task's ``selects`` is one of the names."""


class Meter(Protocol):
    """Collects predictions of a split."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Take in one batch."""

    def compute(self) -> Any:
        """Return the :class:`Result` over all batches and devices."""

    def to(self, device: Any) -> Any:
        """Move to the device of the predictions."""


class Task(Protocol):
    """The seam between the loop and what is learnt."""

    selects: str

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return prediction and target of a batch."""

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the scalar to minimise."""

    def meter(self) -> Meter:
        """Return an empty meter."""


class Classification:
    """Shape classification by cross-entropy; the overall accuracy selects.

    Args:
        classes: class names in label order.
        label_smoothing: share of the target spread evenly over **all** classes (torch's convention).
            PointMLP spreads 0.2 over the *other* 39 classes of ModelNet40, which is ``0.2 * 40 / 39`` here.

    Raises:
        ValueError: ``label_smoothing`` outside [0, 1).
    """

    selects = "OA"

    def __init__(self, classes: tuple[str, ...], *, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: expected at least 0 and below 1, got {label_smoothing}.")
        self.classes = classes
        self.label_smoothing = label_smoothing

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """Return ``(B, classes)`` logits and ``(B,)`` labels."""
        return model(batch.points), batch.labels

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy, in nats, in float32."""
        return F.cross_entropy(prediction.float(), target, label_smoothing=self.label_smoothing)

    def meter(self) -> ClassificationMeter:
        """Return an empty meter for overall and mean class accuracy."""
        return ClassificationMeter(self.classes)
