"""A point cloud as read from a file: in the unit of the file, in full precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bixt3d.io.labels import as_whole

# Rotations of an axis to y, as the order of the coordinates and their signs. z is turned as Blender exports to glTF.
_TO_Y = {"x": ((1, 0, 2), (-1, 1, 1)), "y": ((0, 1, 2), (1, 1, 1)), "z": ((0, 2, 1), (1, 1, -1))}

_MOST_COLUMNS = 12  # a table with more columns than this, and more than rows, is probably transposed


@dataclass(frozen=True)
class Cloud:
    """A point cloud in the unit of its file.

    Coordinates are float64, because map coordinates such as UTM are so large that float32 would round them to steps
    of half a metre. Call :func:`unit_sphere` to centre and scale them before casting.

    Args:
        path: the file that the cloud was read from.
        points: ``(N, 3)`` float64.
        normals: ``(N, 3)`` float64, of unit length; None if the file has none.
        from_mesh: True if the points were sampled from faces, False if they are those of the file.
        labels: ``(N,)`` int64, for example part labels, -1 for unlabelled points. None if the file has no labels or
            they were not requested.

    Raises:
        ValueError: a shape is wrong, the cloud is empty, or a coordinate is not finite.
    """

    path: Path
    points: np.ndarray
    normals: np.ndarray | None = None
    from_mesh: bool = False
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 3:
            raise ValueError(f"{self.path}: expected points of shape (N, 3), got {self.points.shape}.")
        if len(self.points) == 0:
            raise ValueError(f"{self.path}: has no points; expected at least one.")
        bad = ~np.isfinite(self.points).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{self.path}: {int(bad.sum())} of {len(bad)} points have NaN or infinite coordinates "
                f"(first: point {int(np.argmax(bad))}); remove these points."
            )
        if self.normals is not None and self.normals.shape != self.points.shape:
            raise ValueError(
                f"{self.path}: expected normals of shape {self.points.shape}, got {self.normals.shape}."
            )
        if self.labels is not None and self.labels.shape != self.points.shape[:1]:
            raise ValueError(
                f"{self.path}: expected labels of shape ({len(self)},), one for each point, got {self.labels.shape}."
            )

    def __len__(self) -> int:
        return len(self.points)

    def subset(self, index: np.ndarray) -> Cloud:
        """Return the points selected by ``index`` (integers or a mask), with their normals and labels."""
        normals = None if self.normals is None else self.normals[index]
        labels = None if self.labels is None else self.labels[index]
        return replace(self, points=self.points[index], normals=normals, labels=labels)

    def turned(self, up: str) -> Cloud:
        """Return the cloud rotated, with its normals, so that the axis ``up`` becomes y; see :func:`turn_to_y`."""
        if up == "y":
            return self
        normals = None if self.normals is None else turn_to_y(self.normals, up)
        return replace(self, points=turn_to_y(self.points, up), normals=normals)


def check_axis(axis: str) -> None:
    """Raise ValueError unless ``axis`` is ``"x"``, ``"y"`` or ``"z"``."""
    if axis not in _TO_Y:
        raise ValueError(f"up: unknown value {axis!r}, expected one of {', '.join(sorted(_TO_Y))}.")


def turn_to_y(vectors: np.ndarray, axis: str) -> np.ndarray:
    """Rotate vectors so that an axis becomes y.

    For ``"z"``, x stays and y becomes -z. For ``"x"``, z stays and y becomes -x.

    Args:
        vectors: ``(..., 3)``.
        axis: ``"x"``, ``"y"`` or ``"z"``.

    Returns:
        An array of the same shape and dtype.

    Raises:
        ValueError: the axis is unknown.
    """
    check_axis(axis)
    order, sign = _TO_Y[axis]
    return np.ascontiguousarray(vectors[..., order] * np.array(sign, dtype=vectors.dtype))


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """Centre a cloud on its mean and scale its largest radius to 1.

    ``out = (points - mean) / max_i |points_i - mean|``, computed in float64 and then cast.

    Args:
        points: ``(N, 3)``, or ``(..., N, 3)`` for several clouds, of any real dtype and in any unit.

    Returns:
        A float32 array of the same shape. A cloud whose points all coincide becomes all zeros.
    """
    points = scale_to_one(np.asarray(points, dtype=np.float64))
    centred = points - points.mean(axis=-2, keepdims=True)
    radius = np.linalg.norm(centred, axis=-1).max(axis=-1)[..., None, None]
    return (centred / np.where(radius > 0, radius, 1.0)).astype(np.float32)


def scale_to_one(points: np.ndarray) -> np.ndarray:
    """Scale clouds by powers of two so that squares of coordinates cannot overflow or underflow.

    Args:
        points: ``(..., N, 3)`` float64.

    Returns:
        An array of the same shape. The largest absolute coordinate of each cloud is between 0.5 and 1. Only the
        exponents of the numbers change, so nothing is rounded.
    """
    largest = np.maximum(points.max(axis=(-2, -1)), -points.min(axis=(-2, -1)))
    return np.ldexp(points, -np.frexp(largest)[1][..., None, None])


def unit_normals(vectors: np.ndarray) -> np.ndarray | None:
    """Scale vectors ``(N, 3)`` to unit length; returns None if one of them is zero or not finite."""
    vectors = np.asarray(vectors, dtype=np.float64)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    if not np.isfinite(largest).all() or (largest == 0).any():
        return None
    # near 1, since the squares of 1e200 and 1e-200 overflow and underflow
    vectors = np.ldexp(vectors, -np.frexp(largest)[1])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def split_columns(path: Path, columns: np.ndarray, *, labels: bool = False) -> Cloud:
    """Split a table ``(N, 3 or more)`` into xyz and, if columns 4 to 6 are unit vectors, normals.

    A table without column names does not say what its further columns mean: colours and intensities are as common as
    normals. Normals are recognised only by unit length (within 1 %, since text files round).

    If ``labels`` is set, labels are taken from the last of 4 columns, or of 7 if columns 4 to 6 are between -1 and 1
    like normals (the layout of ShapeNetPart), provided that they are whole numbers.

    Raises:
        ValueError: there are fewer than 3 columns, or the table looks transposed.
    """
    if columns.ndim != 2 or columns.shape[1] < 3:
        raise ValueError(
            f"{path}: expected rows of at least 3 numbers (x y z), got an array of shape {columns.shape}."
        )
    if columns.shape[1] > max(len(columns), _MOST_COLUMNS):
        raise ValueError(
            f"{path}: expected one row for each point, got an array of shape {columns.shape}; transpose it."
        )
    columns = columns.astype(np.float64)
    normals = None
    if columns.shape[1] >= 6:
        vectors = columns[:, 3:6]
        with np.errstate(over="ignore"):  # a length that overflows is not 1 either
            length = np.linalg.norm(vectors, axis=1)
        if (np.abs(length - 1) < 0.01).all():
            normals = unit_normals(vectors)
    found = None
    width = columns.shape[1]
    if labels and (width == 4 or (width == 7 and (np.abs(columns[:, 3:6]) < 1.01).all())):
        found = as_whole(columns[:, -1])
    return Cloud(path, np.ascontiguousarray(columns[:, :3]), normals, labels=found)
