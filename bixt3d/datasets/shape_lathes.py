"""Surfaces of revolution about the y axis: cylinders, cones, tubes and domes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from bixt3d.datasets.shape_primitives import Samples, pick


@dataclass(frozen=True)
class Lathe:
    """The surface that a polyline of (radius, height) points sweeps out about the y axis.

    A segment of length l from (r0, y0) to (r1, y1) sweeps out a cone frustum of area pi (r0 + r1) l. The outside is
    to the right of the direction of travel, so the profile of a solid starts on the axis at the bottom and runs
    outwards, up and back to the axis. Discs, cylinders, cones and tubes are special cases.

    Args:
        profile: at least two (radius, height) pairs; radius >= 0, and not all 0.
    """

    profile: tuple[tuple[float, float], ...]

    @property
    def area(self) -> float:
        """Area of all frusta."""
        segments = itertools.pairwise(self.profile)
        return sum(math.pi * (r0 + r1) * math.hypot(r1 - r0, y1 - y0) for (r0, y0), (r1, y1) in segments)

    def sample(self, rng: np.random.Generator, n: int) -> Samples:
        """Draw ``n`` points uniformly by area; see :class:`Primitive`."""
        profile = np.array(self.profile)
        step = np.diff(profile, axis=0)
        length = np.hypot(step[:, 0], step[:, 1])
        segment = pick(rng, (profile[:-1, 0] + profile[1:, 0]) * length, n)
        uniform, turn = rng.random((2, n))
        r0, r1 = profile[segment, 0], profile[segment + 1, 0]
        # The density along a segment is proportional to the radius. In (0, 1] the division below is never 0 / 0.
        uniform = 1.0 - uniform
        radius = np.sqrt(r0 * r0 + uniform * (r1 * r1 - r0 * r0))
        along = uniform * (r0 + r1) / (r0 + radius)
        height = profile[segment, 1] + along * step[segment, 1]
        cos, sin = np.cos(2.0 * math.pi * turn), np.sin(2.0 * math.pi * turn)
        outward = step[segment, 1] / length[segment]
        upward = -step[segment, 0] / length[segment]
        return (
            np.stack([radius * cos, height, radius * sin], axis=1),
            np.stack([outward * cos, upward, outward * sin], axis=1),
        )


def cylinder(radius: float, height: float) -> Lathe:
    """Build a closed cylinder about the y axis, with its bottom at y = 0."""
    return frustum(radius, radius, height)


def frustum(bottom_radius: float, top_radius: float, height: float) -> Lathe:
    """Build a closed cone frustum about the y axis, with its bottom at y = 0; a cone if one radius is 0."""
    return Lathe(((0.0, 0.0), (bottom_radius, 0.0), (top_radius, height), (0.0, height)))


def tube(inner_radius: float, outer_radius: float, height: float) -> Lathe:
    """Build a thick-walled pipe about the y axis, open at both ends, with its bottom at y = 0."""
    corners = ((inner_radius, 0.0), (outer_radius, 0.0), (outer_radius, height), (inner_radius, height))
    return Lathe((*corners, corners[0]))


def dome(radius: float, height: float, segments: int = 10) -> Lathe:
    """Build an open half shell about the y axis, with its rim of ``radius`` at y = 0 and its top at y = ``height``."""
    angles = [0.5 * math.pi * i / segments for i in range(segments)]
    rim_to_top = [(radius * math.cos(a), height * math.sin(a)) for a in angles]
    return Lathe((*rim_to_top, (0.0, height)))
