"""Inputs and outputs of a predictor, and how clouds are split into forward passes."""

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
    """Predicted labels and probabilities of one cloud.

    Args:
        labels: ``()`` int64 for a classifier; ``(N,)`` int64, one label per point, for a segmenter.
        probabilities: ``(classes,)`` or ``(N, parts)`` float32, which sum to 1 over the last axis.
        names: class names, or part names ``"class/part"``, in label order.
        category: class whose parts were predicted; None for a classifier, or if a segmenter had no category.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    names: tuple[str, ...]
    category: str | None = None

    @property
    def name(self) -> str:
        """Name of the predicted class, for a classifier."""
        return self.names[int(self.labels)]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the ``count`` most probable classes of a classifier with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.names[i], float(self.probabilities[i])) for i in order]


@dataclass(frozen=True)
class Job:
    """One checked and normalised cloud, the input of :meth:`Predictor.run`.

    Args:
        features: ``(N, C)`` float32: xyz in the unit sphere, then normals if the model takes them.
        pieces: ``(K, n)`` int64: indices of the points in each forward pass. Points are repeated to fill a pass.
        category: index of the class whose parts are predicted, or None.
        classify_first: the same cloud prepared for the classifier that predicts the category, or None.
        speakers: ``(M,)`` int64: for each point of the original cloud, the row of ``features`` whose prediction it
            takes. None if no stray points were dropped.
        strays: number of points dropped.
    """

    features: np.ndarray
    pieces: np.ndarray
    category: int | None = None
    classify_first: Job | None = None
    speakers: np.ndarray | None = None
    strays: int = 0


def check_classifier(classifier: Any, classes: Sequence[str], parts: Sequence[str]) -> None:
    """Raise a ValueError if ``classifier`` cannot predict categories for a model with these classes and parts."""
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
    """Wrap a model so that it runs in a precision, named as in ``train.precision``.

    Raises:
        ValueError: the precision is unknown, or the device does not support it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(sorted(PRECISIONS))}, got {precision!r}.")
    if precision == "16-mixed" and device.type == "cpu":
        raise ValueError("precision: 16-mixed needs a CUDA device; use bf16-mixed or 32-true here.")
    dtype = PRECISIONS[precision]
    if dtype is None:
        return model

    def run(*inputs: Tensor | None) -> Tensor:
        with torch.autocast(device.type, dtype):  # one context per call, since threads may share a predictor
            return model(*inputs)

    return run


def cut(count: int, size: int, least: int, *, seed: int, all_points: bool) -> np.ndarray:
    """Split ``count`` points into forward passes of ``size`` points and return their indices ``(K, n)``.

    Up to ``size`` points make one pass, repeated to ``least`` points if there are fewer. More points are permuted with
    ``seed``, and make as many passes as cover them all, or a single pass without ``all_points``.
    """
    if count <= size:
        return np.arange(max(count, least))[None] % count
    order = np.random.default_rng(seed).permutation(count)
    passes = -(-count // size) if all_points else 1
    # fill the last pass with the first points drawn: these are distinct, so it is as dense as the others
    return np.resize(order, (passes, size))


def batches(jobs: Sequence[Job], size: int) -> Iterator[list[tuple[int, int]]]:
    """Group up to ``size`` forward passes with the same number of points; yields lists of (job index, pass index)."""
    by_points: dict[int, list[tuple[int, int]]] = {}
    for j, job in enumerate(jobs):
        by_points.setdefault(job.pieces.shape[1], []).extend((j, k) for k in range(len(job.pieces)))
    for passes in by_points.values():
        for start in range(0, len(passes), size):
            yield passes[start : start + size]


def each_cloud(points: Any, normals: Any, category: Any) -> list[tuple[Cloud, Any]] | None:
    """Pair several clouds, a list or an array ``(B, N, 3 or 6)``, with their categories; None for a single cloud.

    Normals and categories have one entry per cloud. None, or a single category name, applies to all clouds.
    """
    if isinstance(points, list | tuple):  # a list of clouds, or the rows of one cloud
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
    """Convert a cloud, or an array, list or tensor ``(N, 3 or 6)``, to a checked :class:`Cloud`.

    Error messages call an array ``name``. Normals are scaled to unit length, as for files, and dropped if one of them
    has no direction.
    """
    cloud = points if isinstance(points, Cloud) else _from_array(points, name)
    if normals is not None:
        if cloud.normals is not None:
            raise ValueError("normals: the points already have normals; leave out one of the two.")
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
    except ValueError as error:  # from numpy: the rows differ in shape
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
