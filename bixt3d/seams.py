"""What the loop is given, as it uses it: protocols, so that it need not know who keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


class Result(Protocol):
    """Outcome of one evaluation.

    It may also have ``details() -> dict[str, float]``, further figures in percent that are reported and never select,
    and ``per_cloud(names) -> dict[str, list[list]]``, tables with a row for each cloud of the split.
    """

    def summary(self) -> dict[str, float]:
        """Return named figures, in percent; the task's ``selects`` is one of the names."""

    def tables(self) -> dict[str, list[list]]:
        """Return rows, headings first, by the name of the CSV file they belong in."""

    picture: str

    def draw(self, path: Path, title: str) -> None:
        """Draw the result as a PNG; ``picture`` is the name that the file should have."""


class Meter(Protocol):
    """Collects predictions of a split."""

    def update(self, prediction: Tensor, target: Any) -> None:
        """Take in one batch."""

    def compute(self) -> Result:
        """Return the result over all batches and devices."""

    def to(self, device: Any) -> Any:
        """Move to the device of the predictions."""


class Task(Protocol):
    """The seam between the loop and what is learnt.

    It may also have ``count(labels)``, which is called once before training with the labels of the training split,
    ``(n,)`` integers.

    Attributes:
        selects: name of the figure that selects a model.
        eval_sampling: the values of ``train.eval_sampling`` that make sense.
    """

    selects: str
    eval_sampling: tuple[str, ...]

    def model_arguments(self) -> dict[str, int]:
        """Return what the model's constructor has to know of the data set."""

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return prediction and target of a batch."""

    def loss(self, prediction: Tensor, target: Any) -> Tensor:
        """Return the scalar to minimise."""

    def meter(self) -> Meter:
        """Return an empty meter."""


class Loader(Protocol):
    """Batches of a split, in the form that the task reads."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Iterate over the batches of an epoch, from batch number ``start`` on, the same each time."""


class Average(Protocol):
    """Running average of a model.

    Attributes:
        module: the averaged model.
        updates: steps that it has taken.
    """

    module: nn.Module
    updates: int

    def to(self, device: Any) -> Any:
        """Move to the device of the model."""

    def update_parameters(self, model: nn.Module) -> None:
        """Take a step towards the model."""


class Stop(Protocol):
    """Says whether somebody wants the run to end."""

    @property
    def requested(self) -> int | None:
        """Number of the signal that asked for it, or None."""


class Observer(Protocol):
    """Is told what a :class:`bixt3d.engine.Trainer` does, for logs and progress bars."""

    def stepped(self, trainer: Any, loss: Tensor, end: int) -> None:
        """Note an optimiser step of the ``end`` there are; reading the loss makes the device wait."""

    def selected(self, trainer: Any, result: Mapping[str, float], better: bool) -> None:
        """Note a look at the split that selects, and whether it is the best so far."""
