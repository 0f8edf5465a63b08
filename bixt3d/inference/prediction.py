"""What goes into a prediction and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io import Cloud
from ..io.cloud import unit_normals

PRECISIONS = {"16-mixed": torch.float16, "32-true": None, "bf16-mixed": torch.bfloat16}


@dataclass(frozen=True)
class Prediction:
    """What a model says about one cloud.

    Args:
        labels: a classifier's label, ``()`` int64, or a segmenter's labels, ``(N,)`` int64, one per point.
        probabilities: ``(classes,)``, or ``(N, parts)``, float32; they add up to 1 over the last axis.
        names: what a label means: class names, or part names ``"class/part"``.
        category: name of the class whose parts were predicted; None for a classifier, or where the
            segmenter was given none.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    names: tuple[str, ...]
    category: str | None = None

    @property
    def name(self) -> str:
        """The name of the one label of a classifier."""
        return self.names[int(self.labels)]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the most probable classes of a classifier with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.names[i], float(self.probabilities[i])) for i in order]


@dataclass(frozen=True)
class Job:
    """One cloud, checked and normalised: what :meth:`Predictor.run` takes.

    Args:
        features: ``(N, C)`` float32: xyz in the unit sphere, and normals where the model takes them.
        pieces: ``(K, n)`` int64: the points of each forward pass; a point that fills a pass up to its size
            occurs again.
        category: index of the class whose parts are wanted, or None.
        classify_first: the same cloud for the classifier that says the category, or None.
        speakers: ``(M,)`` int64: for each point of the cloud the row of ``features`` whose parts it takes, where
            stray points were dropped; else None.
        strays: how many points were dropped.
    """

    features: np.ndarray
    pieces: np.ndarray
    category: int | None = None
    classify_first: Job | None = None
    speakers: np.ndarray | None = None
    strays: int = 0


def check_classifier(classifier: Any, classes: Sequence[str], parts: Sequence[str]) -> None:
    """Raise a ValueError where a predictor cannot say the category for one of these classes and parts."""
    if not parts:
        raise ValueError("classifier: this model predicts classes itself; leave the classifier out.")
    if classifier.parts:
        raise ValueError(
            "classifier: expected a checkpoint that predicts classes, got one that predicts parts."
        )
    if not set(classifier.classes) & set(classes):
        raise ValueError(
            f"classifier: knows {', '.join(classifier.classes)}, expected some of {', '.join(classes)}; "
            "give a classifier trained on the same classes."
        )


def in_precision(model: Callable, precision: str, device: torch.device) -> Callable:
    """Return what computes as a model does, in a precision named as ``train.precision`` is.

    Raises:
        ValueError: there is no such precision, or the device cannot do it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(sorted(PRECISIONS))}, got {precision!r}.")
    if precision == "16-mixed" and device.type == "cpu":
        raise ValueError("precision: 16-mixed needs a CUDA device; use bf16-mixed or 32-true here.")
    dtype = PRECISIONS[precision]
    if dtype is None:
        return model

    def run(*inputs: Tensor | None) -> Tensor:
        with torch.autocast(device.type, dtype):  # one for each call, since threads may share a predictor
            return model(*inputs)

    return run


def cut(count: int, size: int, least: int, *, seed: int, all_points: bool) -> np.ndarray:
    """Cut ``count`` points into passes of ``size``: ``(K, n)`` indices, with every point or a single pass.

    Fewer points than ``size`` make one pass, filled up by repetition to ``least``; more are drawn by ``seed``.
    """
    if count <= size:
        return np.arange(max(count, least))[None] % count
    order = np.random.default_rng(seed).permutation(count)
    passes = -(-count // size) if all_points else 1
    # the last pass is filled up with the first points drawn: distinct, so it is as dense as the others
    return np.resize(order, (passes, size))


def batches(jobs: Sequence[Job], size: int) -> Iterator[list[tuple[int, int]]]:
    """Group passes of equally many points, up to ``size`` of them: lists of (job, pass)."""
    by_points: dict[int, list[tuple[int, int]]] = {}
    for j, job in enumerate(jobs):
        by_points.setdefault(job.pieces.shape[1], []).extend((j, k) for k in range(len(job.pieces)))
    for passes in by_points.values():
        for start in range(0, len(passes), size):
            yield passes[start : start + size]


def each_cloud(points: Any, normals: Any, category: Any) -> list[tuple[Cloud, Any]] | None:
    """Take several clouds, a list of them or an array ``(B, N, 3 or 6)``, with their categories; None for one cloud.

    Normals and category come one for each; None, and for the category a text, hold for all.
    """
    if isinstance(points, list | tuple):  # of clouds, or the rows of one
        many = bool(points) and (isinstance(points[0], Cloud) or np.ndim(points[0]) == 2)
    else:
        many = getattr(points, "ndim", 0) == 3
    if not many:
        return None
    columns = []
    for name, given in (("normals", normals), ("category", category)):
        each = [given] * len(points) if given is None or isinstance(given, str) else list(given)
        if len(each) != len(points):
            raise ValueError(f"{name}: expected one for each of {len(points)} clouds, got {len(each)}.")
        columns.append(each)
    return [
        (as_cloud(p, n, f"points[{i}]"), c) for i, (p, n, c) in enumerate(zip(points, *columns, strict=True))
    ]


def as_cloud(points: Any, normals: Any, name: str = "points") -> Cloud:
    """Take a cloud, or an array ``(N, 3 or 6)``, as a checked :class:`Cloud`; a list or a tensor is an array too.

    An array is called ``name`` in messages.
    Normals are made of unit length, as those of files are; there are none where one of them has no direction.
    """
    cloud = points if isinstance(points, Cloud) else _from_array(points, name)
    if normals is not None:
        if cloud.normals is not None:
            raise ValueError("normals: the points bring normals of their own; give one of the two.")
        cloud = replace(cloud, normals=_real_numbers("normals", normals))
    if cloud is not points and cloud.normals is not None:
        cloud = replace(cloud, normals=unit_normals(cloud.normals))
    if len(cloud) > 1 and (cloud.points == cloud.points[0]).all():
        raise ValueError(
            f"{cloud.path}: all {len(cloud)} points coincide, so the cloud has no shape; expected points of a surface."
        )
    return cloud


def _from_array(points: Any, name: str) -> Cloud:
    several = "; several clouds go through predictor.run([predictor.prepare(cloud), ...])"
    try:
        array = _real_numbers(name, points)
    except ValueError as error:  # numpy's, of rows that do not fit together
        raise ValueError(f"{name}: expected one cloud, got rows of several shapes{several}.") from error
    if array.ndim != 2 or array.shape[1] not in (3, 6):
        hint = several if array.ndim == 3 else ""
        raise ValueError(f"{name}: expected shape (N, 3), or (N, 6) with normals, got {array.shape}{hint}.")
    return Cloud(Path(name), array[:, :3], array[:, 3:] if array.shape[1] == 6 else None)


def _real_numbers(argument: str, values: Any) -> np.ndarray:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{argument}: expected real numbers, got dtype {array.dtype}.")
    return array.astype(np.float64)
