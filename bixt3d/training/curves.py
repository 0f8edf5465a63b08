"""Curves of finished or running runs, read from their CSV files and drawn with matplotlib."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

NOT_FIGURES = ("step", "epoch", "minutes")
FEW = 8  # runs whose names fit into a legend inside the axes
STYLES = ("-o", "--s", ":^", "-.v")
SMOOTHED_OVER = 20  # logged steps that the thick line of the loss averages over


@dataclass(frozen=True)
class Curves:
    """Training curves of a run.

    Attributes:
        loss: training loss by step.
        selection: columns of ``selection.csv``: ``step``, ``epoch``, ``minutes`` and the figures in percent; empty
            if the run had no selection split.
    """

    loss: Mapping[int, float]
    selection: Mapping[str, Sequence[float]]

    @property
    def figures(self) -> list[str]:
        """Names of the figures measured on the selection split."""
        return [name for name in self.selection if name not in NOT_FIGURES]


def read_curves(folder: str | Path) -> Curves:
    """Read ``train.csv`` and, if there is one, ``selection.csv`` of a run.

    Raises:
        FileNotFoundError: the folder does not contain a run.
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
    """Read the training rates, in clouds per second, from ``train.csv`` of a run; empty if none were logged."""
    return read_columns(folder / "train.csv").get("samples_per_second", [])


def read_columns(path: Path, needed: Sequence[str] = ("step",)) -> dict[str, list[float]]:
    """Read the columns of a CSV file that training wrote; empty if there is no such file.

    Rows that are incomplete or hold anything but numbers are skipped.

    Raises:
        ValueError: the file lacks one of the ``needed`` columns.
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
    """Return the numbers of a row, or None if it is incomplete, as in a run that is writing, or not numeric."""
    try:
        return [float(row[name] or "") for name in columns]
    except ValueError:
        return None


def running_mean(values: Sequence[float], width: int = SMOOTHED_OVER) -> list[float]:
    """Return the moving average over each value and up to ``width - 1`` values before it."""
    return [fmean(values[max(0, end - width) : end]) for end in range(1, len(values) + 1)]


def draw_curves(runs: Mapping[str, Curves], path: Path, *, title: str = "", against: str = "step") -> None:
    """Draw the training loss and the figures on the selection split, one colour per run.

    With more than ``FEW`` runs, only the first figure is drawn, and one legend is put below the axes.

    Args:
        runs: curves by the name in the legend.
        path: the PNG file to write.
        title: title above the plots.
        against: x-axis of the figures: ``"step"``, ``"epoch"`` or ``"minutes"``. The loss is always drawn by step.

    Raises:
        ValueError: a run did not record the column ``against``.
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
    entries = []  # for the shared legend
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
        # width of a legend's line and letter, and height of a row, in inches at this font size
        columns = max(1, int(width / (0.5 + 0.06 * max(len(line.get_label()) for line in entries))))
        figure.set_size_inches(width, height + 0.16 * math.ceil(len(entries) / columns))
        figure.legend(handles=entries, loc="outside lower center", ncols=columns, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)
