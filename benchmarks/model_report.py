"""Report of the model benchmark: tables, scaling exponents and a plot."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import NamedTuple

from model_cases import MATRIX, RIVAL, SEGMENTED, Row, count, segments


class Figures(NamedTuple):
    row: Row
    seconds: float
    peak_mib: float | None
    gflop_per_second: float | None


def table(figures: list[Figures]) -> list[str]:
    reference = {f.row.model: f.seconds for f in figures if f.row.how == "reference"}
    rival = {f.row.how: f.seconds for f in figures if f.row.model == RIVAL}
    products = next((f.gflop_per_second for f in figures if f.row.model == MATRIX), None)
    precisions = len({f.row.precision for f in figures}) > 1
    lines = [
        "| model | how | clouds/s | ms | times its reference | times PointMLP eager | GFLOP/s | peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, seconds, peak, rate in figures:
        if row.model == MATRIX:
            continue
        cells = [
            row.name,
            f"{row.label}, {row.precision}" if precisions else row.label,
            f"{row.clouds / seconds:.3g}",
            f"{1000 * seconds:.4g}",
            f"{reference[row.model] / seconds:.2f}" if row.model in reference else "",
            f"{rival['eager'] / seconds:.2f}" if "eager" in rival else "",
            "" if rate is None else f"{rate:,.0f}" + (f" ({rate / products:.0%})" if products else ""),
            "" if peak is None else f"{peak:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if products:
        lines += [
            "",
            f"In brackets: the share of the {products:,.0f} GFLOP/s that square matrices reach, measured in turn "
            "with these rows.",
        ]
    return [*lines, ""]


def sizes_table(models: list[str]) -> list[str]:
    lines = ["| model | parameters, M | points | GFLOP a cloud |", "|---|---|---|---|"]
    for model in models:
        points = SEGMENTED if segments(model) else 1024
        parameters, operations = count(model, points)
        lines.append(
            f"| {Row(model, '', '', 1, points).name} | {parameters / 1e6:.3f} | {points:,} | {operations / 1e9:.2f} |"
        )
    return [*lines, ""]


def exponent(points: list[int], values: list[float]) -> float:
    return statistics.linear_regression([math.log(p) for p in points], [math.log(v) for v in values]).slope


def exponents(figures: list[Figures]) -> list[str]:
    """Format how time and memory grow with N: the slopes of linear fits to the logarithms."""
    lines = []
    for how, precision in sorted({(f.row.how, f.row.precision) for f in figures}):
        for least in (0, 16_000):
            alike = [f for f in figures if (f.row.how, f.row.precision) == (how, precision)]
            some = [f for f in alike if f.row.points >= least]
            points = [f.row.points for f in some]
            if len(points) < 2 or (least and len(some) == len(alike)):
                continue
            said = f"time {exponent(points, [f.seconds for f in some]):.3f}"
            if all(f.peak_mib and f.peak_mib > 0 for f in some):
                said += f", memory {exponent(points, [f.peak_mib or 1.0 for f in some]):.3f}"
            lines.append(f"- {how}, {precision}, {min(points):,} to {max(points):,} points: {said}")
    return [*lines, ""] if lines else []


def plot(tables: dict[str, list[Figures]], grown: list[Figures], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = {title: [f for f in figures if f.row.model != MATRIX] for title, figures in tables.items()}
    bars = {title: figures for title, figures in models.items() if figures}
    heights = [len(figures) for figures in bars.values()] + ([12] if grown else [])
    figure, axes = plt.subplots(
        len(heights),
        figsize=(8, 0.24 * sum(heights) + 0.8 * len(heights)),
        height_ratios=heights,
        squeeze=False,
    )
    for ax, (title, figures) in zip(axes[:, 0], bars.items(), strict=False):
        names = [f"{f.row.name} {f.row.label}" for f in figures]
        colors = ["#1f6f8b" if f.row.model.startswith("bixt") else "#b8b8b8" for f in figures]
        drawn = ax.barh(range(len(names)), [f.row.clouds / f.seconds for f in figures], color=colors)
        ax.set_yticks(range(len(names)), names)
        ax.bar_label(drawn, fmt="%.3g", padding=3, fontsize=7)
        ax.margins(x=0.1)
        ax.invert_yaxis()
        ax.set_title(f"clouds per second, {title}", fontsize=8, loc="left")
    if grown:
        ax = axes[-1, 0]
        for how, precision in sorted({(f.row.how, f.row.precision) for f in grown}):
            some = [f for f in grown if (f.row.how, f.row.precision) == (how, precision)]
            ax.plot(
                [f.row.points for f in some],
                [f.seconds for f in some],
                marker="o",
                label=f"{how}, {precision}",
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.legend(fontsize=7)
        ax.set_title(
            "bixt_naive: seconds of a forward pass over one cloud of N points", fontsize=8, loc="left"
        )
    for ax in axes[:, 0]:
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
