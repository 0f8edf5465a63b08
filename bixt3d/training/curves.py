"""Curves of finished or running runs, read from their CSV files; matplotlib is loaded when they are drawn."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NOT_FIGURES = ("step", "epoch", "minutes")
STYLES = ("-o", "--s", ":^", "-.v")
SMOOTHED_OVER = 20  # logged steps that the thick line of the loss is a mean of


@dataclass(frozen=True)
class Curves:
    """What a run folder says about the way of a run.

    Attributes:
        loss: training loss by step.
        selection: columns of ``selection.csv``: ``step``, ``epoch``, ``minutes`` and the figures in percent; empty
            where nothing was selected.
    """

    loss: Mapping[int, float]
    selection: Mapping[str, Sequence[float]]

    @property
    def figures(self) -> list[str]:
        """Names of the figures that were measured on the split that selects."""
        return [name for name in self.selection if name not in NOT_FIGURES]


def read_curves(folder: str | Path) -> Curves:
    """Read ``train.csv`` and, where there is one, ``selection.csv`` of a run.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: a file lacks a column.
    """
    folder = Path(folder)
    if not (folder / "train.csv").is_file():
        raise FileNotFoundError(
            f"{folder}: no train.csv here; expected the folder of a run of scripts/train_cls.py or train_partseg.py."
        )
    train = _read(folder / "train.csv", ("step", "loss"))
    return Curves(dict(zip(map(int, train["step"]), train["loss"], strict=True)), read_selection(folder))


def read_selection(folder: Path) -> dict[str, list[float]]:
    """Read the columns of ``selection.csv`` of a run; empty where nothing was selected.

    Raises:
        ValueError: the file lacks a column.
    """
    path = folder / "selection.csv"
    return _read(path, ("step",)) if path.is_file() else {}


def _read(path: Path, needed: Sequence[str]) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else list(needed)
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"{path}: has no column {missing[0]!r}; expected the file that training wrote.")
    # a running run may have written half a row
    whole = [row for row in rows if all(row.get(name) for name in columns)]
    return {name: [float(row[name]) for row in whole] for name in columns}


def running_mean(values: Sequence[float], width: int = SMOOTHED_OVER) -> list[float]:
    """Return the mean of each value and of those before it, ``width`` in all at most."""
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(sum(window) / len(window))
    return means


def draw_curves(runs: Mapping[str, Curves], path: Path, *, title: str = "", against: str = "step") -> None:
    """Draw training loss and the figures of the split that selects, one colour for each run.

    Args:
        runs: curves by the name in the legend.
        path: the PNG to write.
        title: line above.
        against: ``"step"``, ``"epoch"`` or ``"minutes"``, for the figures; the loss stands against steps.

    Raises:
        ValueError: a run did not record what it is to be drawn against.
    """
    measured = {name: run for name, run in runs.items() if run.figures}
    for name, run in measured.items():
        if against not in run.selection:
            raise ValueError(f"{name}: its selection.csv has no column {against!r}; draw against step.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11 if measured else 5.5, 4), layout="constrained")
    all_axes = figure.subplots(1, 2 if measured else 1, squeeze=False)
    left = all_axes[0][0]
    for i, (name, run) in enumerate(runs.items()):
        steps, losses = list(run.loss), list(run.loss.values())
        left.plot(steps, losses, color=f"C{i}", alpha=0.2, lw=0.6)
        left.plot(steps, running_mean(losses), color=f"C{i}", lw=1.4, label=name)
    left.set_xlabel("step")
    left.set_ylabel("training loss")
    if measured:
        right = all_axes[0][1]
        for i, (name, run) in enumerate(runs.items()):
            for figure_name, style in zip(run.figures, itertools.cycle(STYLES), strict=False):
                values = run.selection[figure_name]
                label = f"{name}, {figure_name} {max(values):.2f} at best" if values else name
                right.plot(run.selection[against], values, style, color=f"C{i}", ms=4, lw=1.2, label=label)
        right.set_xlabel(against)
        right.xaxis.get_major_locator().set_params(integer=True)
        right.set_ylabel("%, on the split that selects")
    for axes in all_axes[0]:
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)
