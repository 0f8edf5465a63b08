"""The container that every data set returns: point clouds of one split, with their labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

# Part label of points that belong to no part: unlabelled points and padding. The losses and meters of bixt3d ignore it.
FILLER = -1


@dataclass(frozen=True)
class PointClouds:
    """Hold the point clouds of one split, all of the same size, with their labels.

    The arrays are in memory or memory-mapped.

    Args:
        points: ``(n, N, C)`` float32; ``C`` is 3 (xyz) or 6 (xyz and unit normal).
        labels: ``(n,)`` int64, index into ``classes``.
        classes: class names, in label order.
        names: ``n`` strings, the source of each cloud (file name, or file name and row).
        part_labels: ``(n, N)`` int64, index into ``parts``, -1 for unlabelled points (each cloud needs at least one
            labelled point). None if the data set has no part labels.
        parts: part names ``"class/part"`` in label order. The parts of a class are consecutive.
        counts: ``(n,)`` int64, the number of a cloud's own points, 1 to N. They come first, and the rest of the row
            repeats them in order. None if every cloud has N points.

    Raises:
        ValueError: a shape is wrong, a coordinate is not finite, the last three of six columns are not unit normals,
            a label is out of range, a part label belongs to another class, or a cloud has no labelled point. The
            message names the cloud.
        TypeError: an array has the wrong dtype.
    """

    points: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]
    part_labels: np.ndarray | None = None
    parts: tuple[str, ...] = ()
    counts: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_dtype("points", self.points, np.float32)
        _check_dtype("labels", self.labels, np.int64)
        if self.points.ndim != 3 or self.points.shape[2] not in (3, 6):
            raise ValueError(f"points: expected shape (n, N, 3) or (n, N, 6), got {self.points.shape}.")
        n, num_points, _ = self.points.shape
        if self.labels.shape != (n,):
            raise ValueError(f"labels: expected shape ({n},), one per cloud, got {self.labels.shape}.")
        if len(self.names) != n:
            raise ValueError(f"names: expected {n}, one per cloud, got {len(self.names)}.")
        for start in range(0, n, 1024):  # in blocks: the array may be memory-mapped and large
            block = np.isfinite(self.points[start : start + 1024]).all(axis=(1, 2))
            if not block.all():
                bad = start + int(np.argmin(block))
                raise ValueError(
                    f"points: cloud {bad} ({self.names[bad]}) has NaN or infinite coordinates; "
                    "remove or repair it."
                )
        if self.points.shape[2] == 6:
            self._check_normals()
        self._check_range("labels", self.labels, len(self.classes), "classes")
        if self.part_labels is not None:
            _check_dtype("part_labels", self.part_labels, np.int64)
            if self.part_labels.shape != (n, num_points):
                raise ValueError(
                    f"part_labels: expected shape ({n}, {num_points}), got {self.part_labels.shape}."
                )
            self._check_range("part_labels", self.part_labels, len(self.parts), "parts", least=FILLER)
            self._check_parts_of_class(self.part_labels)
        if self.counts is not None:
            _check_dtype("counts", self.counts, np.int64)
            if self.counts.shape != (n,) or ((self.counts < 1) | (self.counts > num_points)).any():
                raise ValueError(f"counts: expected shape ({n},) with values from 1 to {num_points}.")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def sizes(self) -> np.ndarray:
        """Number of points of each cloud, without repetitions, ``(n,)`` int64."""
        if self.counts is not None:
            return self.counts
        return np.full(len(self), self.points.shape[1], dtype=np.int64)

    def select(self, index: np.ndarray) -> PointClouds:
        """Return a copy that holds only the clouds at the integer indices ``(k,)``."""
        return replace(
            self,
            points=self.points[index],
            labels=self.labels[index],
            names=tuple(self.names[i] for i in index),
            part_labels=None if self.part_labels is None else self.part_labels[index],
            counts=None if self.counts is None else self.counts[index],
        )

    def _check_normals(self) -> None:
        """Reject colours and the like; checks the first 64 clouds, and allows some zero normals, as files have them."""
        lengths = np.linalg.norm(self.points[:64, :, 3:], axis=2)
        if lengths.size and (np.abs(lengths - 1) > 0.01).mean() > 0.5:
            raise ValueError(
                "points: expected unit normals in the last three of six columns, but most are not unit vectors "
                "(colours?); pass xyz alone, or normals of length 1."
            )

    def _check_parts_of_class(self, part_labels: np.ndarray) -> None:
        owner = np.array([name.rpartition("/")[0] for name in self.parts])
        # a part whose name does not start with one of the classes may occur in any cloud
        allowed = (np.array(self.classes)[:, None] == owner) | ~np.isin(owner, self.classes)
        allowed = np.insert(allowed, allowed.shape[1], True, axis=1)  # indexed by FILLER
        for start in range(0, len(part_labels), 1024):
            block = slice(start, start + 1024)
            wrong = ~allowed[self.labels[block][:, None], part_labels[block]]
            empty = (part_labels[block] == FILLER).all(axis=1)
            if empty.any():
                bad = start + int(np.argmax(empty))
                raise ValueError(
                    f"part_labels: cloud {bad} ({self.names[bad]}) has no labelled points, all are {FILLER}; "
                    "label some of them, or remove the cloud."
                )
            if wrong.any():
                row, point = (int(v[0]) for v in np.nonzero(wrong))
                bad = start + row
                category = self.classes[self.labels[bad]]
                raise ValueError(
                    f"part_labels: cloud {bad} ({self.names[bad]}) of class {category!r} has part label "
                    f"{int(part_labels[bad, point])} ({self.parts[part_labels[bad, point]]}), which belongs to another "
                    "class; number the parts over all classes, or correct the part names."
                )

    def _check_range(
        self, argument: str, values: np.ndarray, count: int, kind: str, *, least: int = 0
    ) -> None:
        outside = (values < least) | (values >= count)
        if outside.any():
            bad = int(np.nonzero(outside)[0][0])
            value = int(values[outside][0])
            raise ValueError(
                f"{argument}: cloud {bad} ({self.names[bad]}) has label {value}, expected 0 to {count - 1} "
                f"for {count} {kind}{', or -1 for none' if least < 0 else ''}."
            )


def _check_dtype(argument: str, array: np.ndarray, dtype: type) -> None:
    if array.dtype != dtype:
        raise TypeError(f"{argument}: expected dtype {np.dtype(dtype)}, got {array.dtype}.")


def check_point_counts(num_points: int, stored_points: int | None) -> None:
    """Raise ValueError if ``num_points`` is below 1 or ``stored_points`` is below ``num_points``."""
    if num_points < 1:
        raise ValueError(f"num_points: expected at least 1, got {num_points}.")
    if stored_points is not None and stored_points < num_points:
        raise ValueError(
            f"stored_points: expected at least num_points ({num_points}), got {stored_points}; raise it or "
            "lower num_points."
        )


def check_stored(path: Path, available: int, num_points: int, stored_points: int | None) -> None:
    """Raise ValueError if the clouds of a file have fewer points than requested."""
    wanted = stored_points or num_points
    if available < wanted:
        raise ValueError(
            f"{path}: holds {available} points a cloud, but {wanted} were asked for; lower num_points (or "
            "stored_points)."
        )
