"""Plots of robustness results and corrupted clouds. matplotlib is imported when a plot is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize


def plot_robustness(
    curves: Mapping[str, Mapping[int, float]],
    by_points: Mapping[int, float],
    clean: float,
    path: Path,
    *,
    title: str,
) -> None:
    """Plot accuracy against severity for each corruption, and against the number of points.

    Args:
        curves: overall accuracy in percent by corruption and severity; may be empty.
        by_points: overall accuracy in percent by number of points; may be empty.
        clean: overall accuracy in percent on clean clouds.
        path: output PNG file.
        title: title of the figure.
    """
    from matplotlib.figure import Figure

    panels = [panel for panel in (curves, by_points) if panel]
    figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    for axes, panel in zip(all_axes[0], panels, strict=True):
        axes.set_ylim(0, 100)
        axes.grid(alpha=0.3)
        if panel is curves:
            marks = "osD^v<>PX*"
            for i, (name, values) in enumerate(curves.items()):
                axes.plot(
                    [0, *values], [clean, *values.values()], label=name, marker=marks[i % len(marks)], ms=4
                )
            axes.set_xlabel("severity (0: as it is)")
            axes.set_xticks(range(1 + max(max(values) for values in curves.values())))
            axes.legend(fontsize=8, loc="lower left", ncols=2)
        else:
            axes.plot(list(by_points), list(by_points.values()), marker="o")
            axes.set_xscale("log", base=2)
            axes.set_xticks(list(by_points), [f"{n:,}" for n in by_points])
            axes.minorticks_off()
            axes.set_xlabel("points of each cloud")
    all_axes[0][0].set_ylabel("OA, %")
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=120)


def plot_clouds(clouds: Mapping[str, Tensor], path: Path, *, columns: int = 5, reach: float = 1.0) -> None:
    """Draw clouds side by side, seen from the front and above, coloured by depth.

    Args:
        clouds: ``(N, 3)`` points with y up, by name. The name is drawn below each cloud.
        path: output PNG file.
        columns: number of clouds per row.
        reach: half the width of each picture, in the unit of the points.
    """
    from matplotlib.figure import Figure

    sight = torch.tensor([[-0.55, -0.45, -0.7], [0.7, 0.0, -0.55]], dtype=torch.float64)
    forward, right = normalize(sight, dim=1)
    up = torch.linalg.cross(right, forward)
    rows = -(-len(clouds) // columns)
    figure = Figure(figsize=(2 * columns, 2.15 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, points) in zip(axes.flat, clouds.items(), strict=False):
        xyz = points[:, :3].double()
        depth = (xyz * forward).sum(dim=1)
        far_first = depth.argsort(descending=True)
        x, y, shade = (v[far_first].numpy() for v in ((xyz * right).sum(1), (xyz * up).sum(1), depth))
        ax.scatter(x, y, c=shade, s=2.5, cmap="viridis_r", vmin=-1, vmax=1, linewidths=0)
        ax.set_xlim(-reach, reach)
        ax.set_ylim(-reach, reach)
        ax.set_aspect("equal")
        ax.set_title(name, fontsize=8, y=-0.02, va="top")
    figure.savefig(path, dpi=90)
