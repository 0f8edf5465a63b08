"""Protocols of the objects that the training loop is given, so that it does not depend on their classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


class Result(Protocol):
    """Outcome of one evaluation.

    A result may also have ``details() -> dict[str, float]``, further figures in percent that are reported but never
    used for selection, and ``per_cloud(names) -> dict[str, list[list]]``, tables with one row per cloud of the split.
    """

    def summary(self) -> dict[str, float]:
        """Return figures in percent by name; the task's ``selects`` is one of the names."""

    def tables(self) -> dict[str, list[list]]:
        """Return tables by the name of their CSV file, each a list of rows that begins with the headings."""

    picture: str

    def draw(self, path: Path, title: str) -> None:
        """Draw the result as a PNG file; ``picture`` is its recommended file name."""


class Meter(Protocol):
    """Accumulates the predictions of a split."""

    def update(self, prediction: Tensor, target: Any) -> None:
        """Add one batch."""

    def compute(self) -> Result:
        """Return the result over all batches and devices."""

    def to(self, device: Any) -> Any:
        """Move to the device of the predictions."""


class Task(Protocol):
    """What is learnt: prediction, loss and meter.

    A task may also have ``count(labels)``. It is called once before training with the labels of the training split,
    ``(n,)`` integers.

    Attributes:
        selects: name of the figure that selects the best checkpoint.
        eval_sampling: the values of ``train.eval_sampling`` that the task allows.
    """

    selects: str
    eval_sampling: tuple[str, ...]

    def model_arguments(self) -> dict[str, int]:
        """Return the keyword arguments of the model's constructor that depend on the data set."""

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return the prediction and the target of a batch."""

    def loss(self, prediction: Tensor, target: Any) -> Tensor:
        """Return the scalar to minimise."""

    def meter(self) -> Meter:
        """Return an empty meter."""


class Loader(Protocol):
    """Provides the batches of a split, in the form that the task expects."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Iterate over the batches of an epoch from batch ``start`` on; each call yields the same batches."""


class Average(Protocol):
    """Running average of a model.

    Attributes:
        module: the averaged model.
        updates: number of updates so far.
    """

    module: nn.Module
    updates: int

    def to(self, device: Any) -> Any:
        """Move to the device of the model."""

    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the current model."""


class Stop(Protocol):
    """Says whether the run was asked to stop."""

    @property
    def requested(self) -> int | None:
        """Number of the signal that asked the run to stop, or None."""


class Observer(Protocol):
    """Is notified of what a :class:`bixt3d.engine.Trainer` does, for logs and progress bars."""

    def stepped(self, trainer: Any, loss: Tensor, end: int) -> None:
        """Handle one optimiser step of ``end`` in all; reading the loss synchronises with the device."""

    def selected(self, trainer: Any, result: Mapping[str, float], better: bool) -> None:
        """Handle an evaluation on the selection split, and whether its result is the best so far."""
