"""Reports of an evaluation: table, confusion matrix as CSV and picture, results as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .metrics import ClassificationResult


def print_result(results: Mapping[str, ClassificationResult], facts: Mapping[str, Any]) -> None:
    """Print the figures of each result, with the split they were measured on and the one that selected."""
    print(f"{facts['name']} on {facts['split']} ({facts['clouds']:,} clouds):")
    for which, result in results.items():
        figures = ", ".join(f"{name} {value:.2f} %" for name, value in result.summary().items())
        note = ""
        if which == "selected":
            note = f" (epoch {facts['selected_epoch']}, selected on {facts['select_on']})"
            if facts["select_on"] == facts["split"]:
                note += " WARNING: selected on the split it is measured on, so it is too high"
        print(f"  {which:<10} {figures}{note}")


def write_report(folder: Path, results: Mapping[str, ClassificationResult], facts: Mapping[str, Any]) -> None:
    """Write ``results.json`` and, for the last of the results, the confusion matrix and per-class table.

    Args:
        folder: existing folder for ``results.json``, ``confusion.csv``, ``confusion.png``,
            ``per_class.csv``.
        results: results by name; tables and picture show the last one.
        facts: what else ``results.json`` records.
    """
    summary = {**facts, "results": {which: result.summary() for which, result in results.items()}}
    (folder / "results.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    which, result = list(results.items())[-1]
    counts = result.confusion.tolist()
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["truth \\ predicted", *result.classes])
        writer.writerows([name, *row] for name, row in zip(result.classes, counts, strict=True))
    with (folder / "per_class.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "clouds", "correct", "recall_percent", "most_confused_with"])
        for i, (name, row) in enumerate(zip(result.classes, counts, strict=True)):
            others = [(count, other) for other, count in enumerate(row) if other != i]
            worst = max(others, default=(0, 0))
            confused = f"{result.classes[worst[1]]} ({worst[0]})" if worst[0] else ""
            recall = f"{100 * row[i] / sum(row):.2f}" if sum(row) else ""
            writer.writerow([name, sum(row), row[i], recall, confused])
    figures = ", ".join(f"{name} {value:.2f} %" for name, value in result.summary().items())
    plot_confusion(
        result, folder / "confusion.png", title=f"{facts['name']}, {facts['split']}, {which}: {figures}"
    )


def plot_confusion(result: ClassificationResult, path: Path, *, title: str) -> None:
    """Draw the confusion matrix, each row in percent of its class, with the counts where there is room."""
    import matplotlib

    matplotlib.use("Agg")  # no display needed
    import matplotlib.pyplot as plt

    counts = result.confusion.double()
    percent = 100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    n = len(result.classes)
    size = max(5.0, 0.28 * n + 2)
    figure, axes = plt.subplots(figsize=(size + 1, size), layout="constrained")
    image = axes.imshow(percent.numpy(), cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(n), result.classes, rotation=90, fontsize=8)
    axes.set_yticks(range(n), result.classes, fontsize=8)
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
    plt.close(figure)
