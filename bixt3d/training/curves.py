"""Curves of finished or running runs, read from their CSV files; matplotlib is loaded when they are drawn."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

NOT_FIGURES = ("step", "epoch", "minutes")
FEW = 8  # runs whose names have room inside the axes
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
    train = read_columns(folder / "train.csv", ("step", "loss"))
    loss = dict(zip(map(int, train["step"]), train["loss"], strict=True))
    return Curves(loss, read_columns(folder / "selection.csv"))


def read_rates(folder: Path) -> list[float]:
    """Read the clouds a second that ``train.csv`` of a run logged; empty where it logged none."""
    return read_columns(folder / "train.csv").get("samples_per_second", [])


def read_columns(path: Path, needed: Sequence[str] = ("step",)) -> dict[str, list[float]]:
    """Read the numbers of a CSV file that training wrote; none where there is no such file.

    Raises:
        ValueError: the file lacks one of the columns that are needed.
    """
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else list(needed)
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"{path}: has no column {missing[0]!r}; expected the file that training wrote.")
    whole = [numbers for row in rows if (numbers := _numbers(row, columns)) is not None]
    return {name: [numbers[i] for numbers in whole] for i, name in enumerate(columns)}


def _numbers(row: Mapping[str, str | None], columns: Sequence[str]) -> list[float] | None:
    """Return a row's numbers; None of half a row, as a running run may have written, or of anything else."""
    try:
        return [float(row[name] or "") for name in columns]
    except ValueError:
        return None


def running_mean(values: Sequence[float], width: int = SMOOTHED_OVER) -> list[float]:
    """Return the mean of each value and of those before it, ``width`` in all at most."""
    return [fmean(values[max(0, end - width) : end]) for end in range(1, len(values) + 1)]


def draw_curves(runs: Mapping[str, Curves], path: Path, *, title: str = "", against: str = "step") -> None:
    """Draw training loss and the figures of the split that selects, one colour for each run.

    More than ``FEW`` runs share one legend below the axes, and of their figures only the first is drawn.

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
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    few = len(runs) <= FEW
    colors = [f"C{i}" for i in range(len(runs))]
    if not few:
        colors = list(colormaps["turbo"]([i / (len(runs) - 1) for i in range(len(runs))]))
    figure = Figure(figsize=(11 if measured else 5.5, 4), layout="constrained")
    all_axes = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
    left, right = all_axes[0], all_axes[-1]
    entries = []  # of the shared legend
    for color, (name, run) in zip(colors, runs.items(), strict=True):
        steps, losses = list(run.loss), list(run.loss.values())
        left.plot(steps, losses, color=color, alpha=0.2 if few else 0.05, lw=0.6)
        (line,) = left.plot(steps, running_mean(losses), color=color, lw=1.4 if few else 1, label=name)
        entries.append(line)
        figures = run.figures if few else run.figures[:1]
        for figure_name, style in zip(figures, itertools.cycle(STYLES), strict=False):
            values = run.selection[figure_name]
            label = f"{name}, {figure_name} {max(values):.2f} at best" if values else name
            at, size = run.selection[against], 4 if few else 2
            right.plot(at, values, style, color=color, ms=size, lw=1.2, label=label)
            if not few:
                line.set_label(label)
    left.set_xlabel("step")
    left.set_ylabel("training loss")
    if measured:
        right.set_xlabel(against)
        right.xaxis.get_major_locator().set_params(integer=True)
        right.set_ylabel("%, on the split that selects")
    for axes in all_axes:
        axes.grid(alpha=0.3)
        if few:
            axes.legend(fontsize=8)
    if not few:
        width, height = figure.get_size_inches()
        # inches of a legend's line and letter at that size of print
        columns = max(1, int(width / (0.5 + 0.06 * max(len(line.get_label()) for line in entries))))
        figure.set_size_inches(width, height + 0.16 * math.ceil(len(entries) / columns))
        figure.legend(handles=entries, loc="outside lower center", ncols=columns, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)
