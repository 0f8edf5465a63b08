"""One point cloud as it lies in a file: in its own unit, at full precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bixt3d.io.labels import as_whole

# What turns an axis into y: which coordinate goes where, and its sign. z as Blender turns its scenes for glTF.
_TO_Y = {"x": ((1, 0, 2), (-1, 1, 1)), "y": ((0, 1, 2), (1, 1, 1)), "z": ((0, 2, 1), (1, 1, -1))}

_MOST_COLUMNS = 12  # of one point; a table of more columns than that and than rows lies on its side


@dataclass(frozen=True)
class Cloud:
    """One point cloud in the unit of its file.

    Coordinates stay float64: map coordinates such as UTM are so large that float32 would leave steps of
    half a metre. Call :func:`unit_sphere` to centre and scale them before the cast.

    Args:
        path: the file that the cloud came from.
        points: ``(N, 3)`` float64.
        normals: ``(N, 3)`` float64, unit length, or None where the file has none.
        from_mesh: True where the points were sampled from faces, False where they are the file's own.
        labels: ``(N,)`` int64, such as parts, -1 for points without one; None where the file has none or they were not
            asked for.

    Raises:
        ValueError: the shape is wrong, the cloud is empty, or a coordinate is not finite.
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
        """Return the points that ``index``, numbers or a mask, picks, with their normals and labels."""
        normals = None if self.normals is None else self.normals[index]
        labels = None if self.labels is None else self.labels[index]
        return replace(self, points=self.points[index], normals=normals, labels=labels)

    def turned(self, up: str) -> Cloud:
        """Return the cloud with its normals, turned so that the axis ``up`` becomes y; see :func:`turn_to_y`."""
        if up == "y":
            return self
        normals = None if self.normals is None else turn_to_y(self.normals, up)
        return replace(self, points=turn_to_y(self.points, up), normals=normals)


def check_axis(axis: str) -> None:
    """Raise a ValueError unless an axis is ``"x"``, ``"y"`` or ``"z"``."""
    if axis not in _TO_Y:
        raise ValueError(f"up: unknown value {axis!r}, expected one of {', '.join(sorted(_TO_Y))}.")


def turn_to_y(vectors: np.ndarray, axis: str) -> np.ndarray:
    """Turn vectors so that an axis becomes y: of z, x stays and y becomes -z; of x, z stays and y becomes -x.

    Args:
        vectors: ``(..., 3)``.
        axis: ``"x"``, ``"y"`` or ``"z"``.

    Raises:
        ValueError: there is no such axis.
    """
    check_axis(axis)
    order, sign = _TO_Y[axis]
    return np.ascontiguousarray(vectors[..., order] * np.array(sign, dtype=vectors.dtype))


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """Centre a cloud on its mean and scale its largest radius to 1.

    ``out = (points - mean) / max_i |points_i - mean|``, computed in float64 and only then cast.

    Args:
        points: ``(N, 3)``, or ``(..., N, 3)`` for several clouds, any real dtype, any unit.

    Returns:
        An array of the same shape, float32. A cloud whose points all coincide becomes all zeros.
    """
    points = scale_to_one(np.asarray(points, dtype=np.float64))
    centred = points - points.mean(axis=-2, keepdims=True)
    radius = np.linalg.norm(centred, axis=-1).max(axis=-1)[..., None, None]
    return (centred / np.where(radius > 0, radius, 1.0)).astype(np.float32)


def scale_to_one(points: np.ndarray) -> np.ndarray:
    """Scale clouds by powers of two so that no square of a coordinate leaves the range of float64.

    Args:
        points: ``(..., N, 3)`` float64.

    Returns:
        An array of the same shape. The largest coordinate of each cloud is between 0.5 and 1 in size; no bit but
        those of the exponents changes.
    """
    largest = np.maximum(points.max(axis=(-2, -1)), -points.min(axis=(-2, -1)))
    return np.ldexp(points, -np.frexp(largest)[1][..., None, None])


def unit_normals(vectors: np.ndarray) -> np.ndarray | None:
    """Scale vectors ``(N, 3)`` to unit length; None where one of them has no direction."""
    vectors = np.asarray(vectors, dtype=np.float64)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    if not np.isfinite(largest).all() or (largest == 0).any():
        return None
    vectors = np.ldexp(vectors, -np.frexp(largest)[1])  # near 1: squares of 1e200 or 1e-200 are no numbers
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def split_columns(path: Path, columns: np.ndarray, *, labels: bool = False) -> Cloud:
    """Take a table ``(N, 3 or more)`` as xyz and, where columns 4 to 6 are unit vectors, normals.

    Nothing in a bare table says what its further columns mean: colours and intensities are as common as
    normals. Only unit length (within 1 %, since text files round) tells normals from the rest.

    Where ``labels`` are asked for, they are the last of 4 columns, or of 7 where columns 4 to 6 lie within -1 and 1 as
    normals do (the layout of ShapeNetPart), if they are whole numbers.
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
        with np.errstate(over="ignore"):  # lengths beyond the range of numbers are not 1 either
            length = np.linalg.norm(vectors, axis=1)
        if (np.abs(length - 1) < 0.01).all():
            normals = unit_normals(vectors)
    found = None
    width = columns.shape[1]
    if labels and (width == 4 or (width == 7 and (np.abs(columns[:, 3:6]) < 1.01).all())):
        found = as_whole(columns[:, -1])
    return Cloud(path, np.ascontiguousarray(columns[:, :3]), normals, labels=found)
