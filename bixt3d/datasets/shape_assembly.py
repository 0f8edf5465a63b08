"""Assemble an object from primitives, each of which belongs to a named part."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from bixt3d.datasets.shape_lathes import frustum
from bixt3d.datasets.shape_primitives import Primitive

Vector = tuple[float, float, float]

_MIN_PART_POINTS = 8


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Return the right-handed rotation matrix ``(3, 3)`` about an axis, for column vectors."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = {
        "x": [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]],
        "y": [[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]],
        "z": [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]],
    }
    return np.array(rows[axis])


@dataclass(frozen=True)
class _Piece:
    part: int
    primitive: Primitive
    at: np.ndarray
    turn: np.ndarray | None


@dataclass
class Assembly:
    """Collect placed primitives, and sample the union of their surfaces.

    Args:
        part_names: names of the parts that pieces can belong to. A part without a piece is absent.
    """

    part_names: tuple[str, ...]
    pieces: list[_Piece] = field(default_factory=list)

    def add(
        self,
        part: str,
        primitive: Primitive,
        at: Vector | np.ndarray = (0.0, 0.0, 0.0),
        turn: np.ndarray | None = None,
    ) -> None:
        """Add ``primitive``, placed by ``turn @ x + at``, to ``part``, one of ``part_names``."""
        self.pieces.append(_Piece(self.part_names.index(part), primitive, np.asarray(at), turn))

    def add_strut(
        self,
        part: str,
        start: Vector | np.ndarray,
        end: Vector | np.ndarray,
        radius: float,
        end_radius: float | None = None,
    ) -> None:
        """Add a closed cylinder, or a frustum, whose axis runs from ``start`` to ``end``."""
        start = np.asarray(start, dtype=np.float64)
        axis = np.asarray(end, dtype=np.float64) - start
        length = float(np.linalg.norm(axis))
        up = axis / length
        # The strut is round, so any direction that is not parallel to its axis can complete the frame.
        other = np.array([0.0, 0.0, 1.0]) if abs(up[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
        across = np.cross(up, other)
        across /= np.linalg.norm(across)
        turn = np.stack([across, up, np.cross(across, up)], axis=1)
        shape = frustum(radius, radius if end_radius is None else end_radius, length)
        self.add(part, shape, start, turn)

    def sample(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw ``n`` points in random order, uniformly by area over all pieces.

        Surfaces inside another piece are sampled too. A part that would get fewer than eight points (``n // 8`` in
        clouds of fewer than 64) gets that many, taken from the part with the most points.

        Args:
            rng: source of all randomness.
            n: number of points.

        Returns:
            Points ``(n, 3)`` float64, outward unit normals ``(n, 3)`` float64, and parts ``(n,)`` int64, indices into
            ``part_names``.
        """
        counts = self._counts(rng, n)
        points, normals = np.empty((n, 3)), np.empty((n, 3))
        first = 0
        for piece, count in zip(self.pieces, counts, strict=True):
            span = slice(first, first + count)
            local, direction = piece.primitive.sample(rng, count)
            if piece.turn is not None:
                local, direction = local @ piece.turn.T, direction @ piece.turn.T
            points[span], normals[span] = local + piece.at, direction
            first += count
        part = np.repeat(np.array([piece.part for piece in self.pieces], dtype=np.int64), counts)
        order = rng.permutation(n)
        return points[order], normals[order], part[order]

    def _counts(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Divide ``n`` points among the pieces by area, with a minimum for every part that is present."""
        areas = np.array([piece.primitive.area for piece in self.pieces])
        part = np.array([piece.part for piece in self.pieces])
        counts = rng.multinomial(n, areas / areas.sum())
        floor = min(_MIN_PART_POINTS, n // 8)
        for scarce in np.unique(part):
            own = part == scarce
            missing = floor - int(counts[own].sum())
            if missing <= 0:
                continue
            totals = np.bincount(part, weights=counts)
            rich = part == np.argmax(totals)
            counts[rich] -= rng.multivariate_hypergeometric(counts[rich], missing)
            counts[own] += rng.multinomial(missing, areas[own] / areas[own].sum())
        return counts
