"""Which of the things that a file says of each point is its label, and what it may be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

LABEL_NAMES = ("label", "labels", "part", "classification", "class")
"""What a column of labels may be called, in any case; the first that is there counts."""

UNLABELLED = -1
"""Label of points that nobody labelled."""


def label_name(names: Iterable[str]) -> str | None:
    """Return which of a file's columns holds labels, if one does; CloudCompare puts ``scalar_`` before its names."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.lower().removeprefix("scalar_"), name)
    return next((found[name] for name in LABEL_NAMES if name in found), None)


def whole_labels(path: Path, name: str, values: np.ndarray, count: int) -> np.ndarray:
    """Return the labels of ``count`` points, ``(count,)`` int64; NaN, CloudCompare's word for none, becomes -1.

    Args:
        path, name: the file and the column, for messages.
        values: ``(count,)`` or ``(count, 1)``.
        count: number of points.

    Raises:
        ValueError: there is not one for each point, or one is no whole number.
    """
    if values.shape not in ((count,), (count, 1)):
        raise ValueError(
            f"{path}: {name}: expected shape ({count},), one for each point, got {values.shape}."
        )
    values = values.reshape(-1)
    if values.dtype.kind in "biuf":
        labels, whole = _cast(values)
        if whole.all():
            return labels
        values = values[~whole]
    raise ValueError(f"{path}: {name}: expected whole numbers as labels, got {values[:1].tolist()[0]!r}.")


def as_whole(values: np.ndarray) -> np.ndarray | None:
    """Return real numbers as int64, NaN as -1; None where one is not whole."""
    labels, whole = _cast(values)
    return labels if whole.all() else None


def _cast(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.where(np.isnan(values), UNLABELLED, values) if values.dtype.kind == "f" else values
    with np.errstate(invalid="ignore"):  # what is infinite or too large becomes another number
        labels = values.astype(np.int64)
    return labels, labels == values
