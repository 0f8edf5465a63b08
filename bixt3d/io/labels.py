"""Find and check the labels of points among the columns of a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

LABEL_NAMES = ("label", "labels", "part", "classification", "class")
"""Names of a label column, in order of precedence and in any case."""

UNLABELLED = -1
"""Label of unlabelled points."""


def label_name(names: Iterable[str]) -> str | None:
    """Return the name of the label column, or None; CloudCompare's prefix ``scalar_`` is ignored."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.lower().removeprefix("scalar_"), name)
    return next((found[name] for name in LABEL_NAMES if name in found), None)


def whole_labels(path: Path, name: str, values: np.ndarray, count: int) -> np.ndarray:
    """Return the labels of ``count`` points, ``(count,)`` int64; NaN, with which CloudCompare marks none, becomes -1.

    Args:
        path, name: file and column, for messages.
        values: ``(count,)`` or ``(count, 1)``.
        count: number of points.

    Raises:
        ValueError: there is not one label per point, or a label is not a whole number.
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
    """Return real numbers as int64, with NaN as -1; None if one is not a whole number."""
    labels, whole = _cast(values)
    return labels if whole.all() else None


def _cast(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.where(np.isnan(values), UNLABELLED, values) if values.dtype.kind == "f" else values
    with np.errstate(invalid="ignore"):  # infinite or too large values become other numbers
        labels = values.astype(np.int64)
    return labels, labels == values
