"""Pictures of an evaluation; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor


def plot_confusion(counts: Tensor, classes: Sequence[str], path: Path, *, title: str) -> None:
    """Draw the confusion matrix, each row in percent of its class, with the counts.

    Args:
        counts: ``(classes, classes)``, row = truth, column = prediction.
        classes: names in order.
        path: the PNG to write.
        title: line above.
    """
    from matplotlib.figure import Figure

    counts = counts.double()
    percent = 100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    n = len(classes)
    size = max(5.0, 0.28 * n + 2)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent.numpy(), cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(n), classes, rotation=90, fontsize=8)
    axes.set_yticks(range(n), classes, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_title(title, fontsize=9)
    for i, j in (counts > 0).nonzero().tolist():
        axes.text(
            j,
            i,
            str(int(counts[i, j])),
            ha="center",
            va="center",
            fontsize=6 if n > 15 else 8,
            color="white" if percent[i, j] > 55 else "black",
        )
    figure.colorbar(image, ax=axes, shrink=0.7, label="% of the class")
    figure.savefig(path, dpi=150)


def plot_bars(
    names: Sequence[str], bars: Mapping[str, Sequence[float]], path: Path, *, label: str, title: str
) -> None:
    """Draw a group of horizontal bars, from 0 to 100, for each name.

    Args:
        names: one for each group, from the top down.
        bars: lengths by series; NaN draws none.
        path: the PNG to write.
        label: what the bars measure.
        title: line above.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(bars)
    for i, (series, lengths) in enumerate(bars.items()):
        places = [n + (i - (len(bars) - 1) / 2) * height for n in range(len(names))]
        axes.barh(places, lengths, height=height, label=series)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(label)
    axes.set_title(title, fontsize=8, wrap=True)
    axes.legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=150)
