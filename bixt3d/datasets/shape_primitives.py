"""Simple surfaces that can be sampled uniformly by area, with outward unit normals.

Primitives are immutable. ``area`` is exact, or its error is documented. ``sample(rng, n)`` depends only on the state of
the generator. Coordinates have no unit, and y is up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Samples = tuple[np.ndarray, np.ndarray]


class Primitive(Protocol):
    """Protocol of a surface in an assembly: its area, and points sampled from it."""

    @property
    def area(self) -> float:
        """Area of the surface, in squared length units."""

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw ``n`` points uniformly by area.

        Args:
            rng: source of all randomness.
            n: number of points, 0 or more.

        Returns:
            Points ``(n, 3)`` and outward unit normals ``(n, 3)``, float64.
        """


@dataclass(frozen=True)
class Box:
    """The six faces of an axis-aligned box centred on the origin.

    Args:
        size: edge lengths along x, y and z, each > 0.
    """

    size: tuple[float, float, float]

    @property
    def area(self) -> float:
        """Area of the six faces: 2 (xy + yz + zx)."""
        x, y, z = self.size
        return 2.0 * (x * y + y * z + z * x)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw ``n`` points uniformly by area; see :class:`Primitive`."""
        x, y, z = self.size
        size = np.array(self.size)
        points = (rng.random((n, 3)) - 0.5) * size
        axis = pick(rng, np.array([y * z, z * x, x * y]), n)
        rows = np.arange(n)
        # The coordinate that is constant on the face was drawn symmetrically, so its sign can choose between two faces.
        sign = np.where(points[rows, axis] < 0.0, -1.0, 1.0)
        points[rows, axis] = 0.5 * sign * size[axis]
        normals = np.zeros((n, 3))
        normals[rows, axis] = sign
        return points, normals


@dataclass(frozen=True)
class Ellipsoid:
    """The surface (x/a)^2 + (y/b)^2 + (z/c)^2 = 1, a sphere if the radii are equal.

    Args:
        radii: semi-axes (a, b, c), each > 0.
    """

    radii: tuple[float, float, float]

    @property
    def area(self) -> float:
        """Area by Thomsen's formula, with an error of at most 1.1 % (exact for a sphere).

        4 pi (((ab)^p + (bc)^p + (ca)^p) / 3)^(1/p) with p = 1.6075.
        """
        a, b, c = self.radii
        p = 1.6075
        return 4.0 * math.pi * (((a * b) ** p + (b * c) ** p + (c * a) ** p) / 3.0) ** (1.0 / p)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw ``n`` points uniformly by area; see :class:`Primitive`."""
        radii = np.array(self.radii)
        accepted = np.empty((0, 3))
        # Stretching a sphere scales its area at direction u by abc |u / radii|, so accept in that proportion.
        while len(accepted) < n:
            unit = rng.standard_normal((2 * (n - len(accepted)) + 8, 3))
            unit /= np.linalg.norm(unit, axis=1, keepdims=True)
            stretch = np.linalg.norm(unit / radii, axis=1) * min(self.radii)
            accepted = np.concatenate([accepted, unit[rng.random(len(unit)) < stretch]])
        unit = accepted[:n]
        normals = unit / radii
        return unit * radii, normals / np.linalg.norm(normals, axis=1, keepdims=True)


@dataclass(frozen=True)
class Torus:
    """A tube bent about the z axis, whole or as an arc with open ends.

    The centre line is (R cos t, R sin t, 0) for t from ``start`` to ``stop``; the area is
    (stop - start) 2 pi R r.

    Args:
        radius: radius R of the centre line.
        tube_radius: radius r of the tube, 0 < r <= R.
        start: first angle in radians, from x towards y.
        stop: last angle in radians, ``start < stop <= start + 2 pi``.
    """

    radius: float
    tube_radius: float
    start: float = 0.0
    stop: float = 2.0 * math.pi

    @property
    def area(self) -> float:
        """Area of the tube, without end caps."""
        return (self.stop - self.start) * 2.0 * math.pi * self.radius * self.tube_radius

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw ``n`` points uniformly by area; see :class:`Primitive`."""
        around, along, side = rng.random((3, n))
        around *= 2.0 * math.pi
        along = self.start + along * (self.stop - self.start)
        # The area at tube angle a is proportional to 1 + e cos a with e = r / R. Keeping a with probability
        # (1 + e cos a) / 2, and replacing it by pi - a otherwise, gives exactly that density without rejection.
        cos = np.cos(around)
        keep = side < 0.5 * (1.0 + self.tube_radius / self.radius * cos)
        cos = np.where(keep, cos, -cos)
        normals = np.stack([cos * np.cos(along), cos * np.sin(along), np.sin(around)], axis=1)
        points = self.tube_radius * normals
        points[:, 0] += self.radius * np.cos(along)
        points[:, 1] += self.radius * np.sin(along)
        return points, normals


@dataclass(frozen=True)
class Extrusion:
    """An outline in the xy plane, extruded along z: two caps at z = +-depth/2, and the walls.

    Args:
        outline: at least three (x, y) corners, clockwise or counter-clockwise. The straight line from their mean to
            each point of the outline must stay inside, as in convex outlines and those with mild waists.
        depth: thickness along z, > 0.

    Raises:
        ValueError: the outline has no area, or not all of it is visible from the mean of its corners.

    Source: Osada et al., "Shape Distributions", 2002, section 4.1 (uniform points in a triangle).
    """

    outline: tuple[tuple[float, float], ...]
    depth: float

    def __post_init__(self) -> None:
        _, _, fan = _fan(self.outline)
        if fan.min() < 0.0 or fan.sum() <= 0.0:
            raise ValueError(
                "outline: got corners that are not all visible from their mean, expected a convex outline or "
                "one with mild waists; split it into several extrusions."
            )

    @property
    def area(self) -> float:
        """Area of both caps and the walls."""
        _, step, fan = _fan(self.outline)
        return float(2.0 * fan.sum() + self.depth * np.hypot(step[:, 0], step[:, 1]).sum())

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw ``n`` points uniformly by area; see :class:`Primitive`."""
        corners, step, fan = _fan(self.outline)
        length = np.hypot(step[:, 0], step[:, 1])
        face = pick(rng, np.concatenate([length * self.depth, 2.0 * fan]), n)
        wall, edge = face < len(corners), face % len(corners)
        along, across = rng.random((2, n))
        on_edge = corners[edge] + along[:, None] * step[edge]
        # On a cap, move a point of the edge towards the mean of the corners; sqrt makes it uniform by area.
        pull = np.where(wall, 1.0, np.sqrt(across))[:, None]
        middle = corners.mean(axis=0)
        points = np.empty((n, 3))
        points[:, :2] = middle + pull * (on_edge - middle)
        cap = np.where(rng.random(n) < 0.5, -1.0, 1.0)
        points[:, 2] = self.depth * np.where(wall, across - 0.5, 0.5 * cap)
        normals = np.empty((n, 3))
        scale = np.where(wall, 1.0, 0.0) / np.maximum(length[edge], np.finfo(np.float64).tiny)
        normals[:, 0] = scale * step[edge, 1]
        normals[:, 1] = -scale * step[edge, 0]
        normals[:, 2] = np.where(wall, 0.0, cap)
        return points, normals


def pick(rng: np.random.Generator, weights: np.ndarray, n: int) -> np.ndarray:
    """Draw ``n`` indices with probability proportional to ``weights``."""
    limits = np.cumsum(weights)
    # A draw that rounds up to the last limit would give an index past the end.
    return np.searchsorted(limits, rng.random(n) * limits[-1], side="right").clip(max=len(weights) - 1)


def _fan(outline: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return counter-clockwise corners ``(K, 2)``, edges ``(K, 2)`` and triangle areas ``(K,)`` about the mean."""
    corners = np.array(outline, dtype=np.float64)
    following = np.roll(corners, -1, axis=0)
    if (corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum() < 0.0:
        corners = corners[::-1]
        following = np.roll(corners, -1, axis=0)
    middle = corners.mean(axis=0)
    a, b = corners - middle, following - middle
    return corners, following - corners, 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
