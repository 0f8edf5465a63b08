"""Scenes: point clouds with coloured views and legends, independent of how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..io import UNLABELLED, unit_sphere
from .palette import CORRECT, PLAIN, WRONG, error_colors, part_colors, ramp_colors

VIEWS = ("prediction", "ground truth", "errors")


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend.

    Args:
        name: label of the colour.
        color: red, green, blue, 0 to 255.
        share: fraction of the points in [0, 1]; None if not applicable.
    """

    name: str
    color: tuple[int, int, int]
    share: float | None = None

    @property
    def text(self) -> str:
        """The name and the percentage of points, such as ``"wing 31.5 %"``."""
        return self.name if self.share is None else f"{self.name} {100 * self.share:.1f} %"


@dataclass(frozen=True)
class View:
    """One colouring of a cloud.

    Args:
        title: such as ``"prediction"``.
        colors: ``(N, 3)`` uint8.
        legend: legend of the colours.
    """

    title: str
    colors: np.ndarray
    legend: tuple[LegendEntry, ...]


@dataclass(frozen=True)
class Scene:
    """A point cloud and its views.

    Args:
        name: name of the file, or of the shape in its data set.
        points: ``(N, 3)`` float32 in the unit sphere, y up.
        views: one or more views.
    """

    name: str
    points: np.ndarray
    views: tuple[View, ...]


def part_scene(
    name: str,
    points: np.ndarray,
    labels: np.ndarray,
    parts: Sequence[str],
    truth: np.ndarray | None = None,
) -> Scene:
    """Make a scene of predicted parts and, if the truth is given, views of the truth and the errors.

    Args:
        name: title of the scene.
        points: ``(N, 3)`` in any unit.
        labels: ``(N,)`` predicted parts, as indices into ``parts``.
        parts: part names ``"class/part"``.
        truth: ``(N,)`` true parts, -1 where unknown; or None.

    Raises:
        ValueError: labels or truth differ from the points in length, or are outside ``parts``.
    """
    for argument, values, least in (("labels", labels, 0), ("truth", truth, UNLABELLED)):
        if values is None:
            continue
        if values.shape != (len(points),):
            raise ValueError(
                f"{argument}: expected shape ({len(points)},), one per point, got {values.shape}."
            )
        if values.min() < least or values.max() >= len(parts):
            raise ValueError(
                f"{argument}: expected parts 0 to {len(parts) - 1}, got {int(values.min())} to {int(values.max())}."
            )
    colors = part_colors(parts)
    views = [View(VIEWS[0], colors[labels], _part_legend(labels, parts, colors, truth))]
    if truth is not None:
        unknown = truth == UNLABELLED
        errors = np.where(unknown[:, None], PLAIN, error_colors(labels, truth))
        legend = tuple(
            LegendEntry(what, _rgb(color), float((errors == color).all(axis=1).mean()))
            for what, color in (("correct", CORRECT), ("wrong", WRONG))
        )
        rest = (LegendEntry("not labelled", _rgb(PLAIN), float(unknown.mean())),) if unknown.any() else ()
        shown = np.where(unknown[:, None], PLAIN, colors[truth])
        views.append(View(VIEWS[1], shown, _part_legend(truth, parts, colors, labels) + rest))
        views.append(View(VIEWS[2], errors, legend + rest))
    return Scene(name, unit_sphere(points), tuple(views))


def attention_scene(name: str, points: np.ndarray, weights: np.ndarray, latents: Sequence[int]) -> Scene:
    """Make a scene of attention weights, with one view per latent.

    Each view is scaled by its own 99th percentile, since a few points can have most of the attention.

    Args:
        name: title of the scene.
        points: ``(N, 3)`` in any unit.
        weights: ``(len(latents), N)`` attention weights, 0 or more.
        latents: index of each latent.
    """
    views = []
    for latent, row in zip(latents, weights, strict=True):
        top = float(np.percentile(row, 99)) or float(row.max()) or 1.0
        low, high = ramp_colors(np.array([0.0, 1.0]))
        legend = (
            LegendEntry("no attention", _rgb(low)),
            LegendEntry(f"{top / max(float(row.mean()), 1e-12):.1f} times the mean, or more", _rgb(high)),
        )
        views.append(View(f"latent {latent}", ramp_colors(row / top), legend))
    return Scene(name, unit_sphere(points), tuple(views))


def plain_scene(name: str, points: np.ndarray, title: str) -> Scene:
    """Make a scene of one view in a single colour, titled with, for example, the predicted class."""
    colors = np.broadcast_to(PLAIN, (len(points), 3)).copy()
    return Scene(name, unit_sphere(points), (View(title, colors, ()),))


def _part_legend(
    labels: np.ndarray, parts: Sequence[str], colors: np.ndarray, other: np.ndarray | None
) -> tuple[LegendEntry, ...]:
    """List the parts that occur in ``labels`` or ``other``, so that the legends of both views match."""
    counts, elsewhere = (
        np.bincount(values[values != UNLABELLED], minlength=len(parts))
        for values in (labels, labels if other is None else other)
    )
    shown = np.flatnonzero(counts + elsewhere).tolist()
    classes = {parts[i].rpartition("/")[0] for i in shown}
    # with one class, the prefix is redundant
    names = [parts[i].rpartition("/")[2] if len(classes) == 1 else parts[i] for i in shown]
    return tuple(
        LegendEntry(name, _rgb(colors[i]), counts[i] / len(labels))
        for name, i in zip(names, shown, strict=True)
    )


def _rgb(color: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in color)
    return red, green, blue
