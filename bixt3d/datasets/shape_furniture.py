"""Build the furniture of the procedural data set: chairs and tables, which share their legs, and lamps."""

from __future__ import annotations

import math

import numpy as np

from bixt3d.datasets.shape_assembly import Assembly, rotation
from bixt3d.datasets.shape_lathes import Lathe, cylinder, dome, frustum
from bixt3d.datasets.shape_primitives import Box, Ellipsoid, Extrusion


def build_chair(rng: np.random.Generator, chair: Assembly) -> None:
    """Add a seat, a back (panel, slats or rungs), legs or a swivel foot, and perhaps arms; it faces +x."""
    width, depth = rng.uniform(0.4, 0.65), rng.uniform(0.38, 0.58)
    height, thick = rng.uniform(0.28, 0.55), rng.uniform(0.025, 0.13)
    chair.add("seat", Box((depth, thick, width)), (0.0, height + 0.5 * thick, 0.0))

    tall = rng.uniform(0.28, 0.85)
    turn = rotation("z", rng.uniform(0.0, 20.0))
    slab = rng.uniform(0.02, 0.08)
    hinge = np.array([-0.5 * (depth - slab), height + thick, 0.0])
    style = rng.integers(3)
    if style == 0:
        chair.add("back", Box((slab, tall, width)), hinge + turn @ np.array([0.0, 0.5 * tall, 0.0]), turn)
    else:
        # Two posts carry either upright slats under a rail, or rungs.
        bar, slab = rng.uniform(0.03, 0.06), min(slab, 0.04)
        inner = 0.5 * (width - bar)
        bars = [(0.5 * tall, side * inner, tall, bar) for side in (-1.0, 1.0)]
        if style == 1:
            bars.append((tall - 0.04, 0.0, 0.08, width - 2.0 * bar))
            bars += [
                (0.5 * tall, z, tall, 0.6 * bar) for z in np.linspace(-inner, inner, rng.integers(4, 7))[1:-1]
            ]
        else:
            rung = rng.uniform(0.05, 0.1)
            levels = np.linspace(0.3, 1.0, rng.integers(2, 5)) * tall - 0.5 * rung
            bars += [(y, 0.0, rung, width - 2.0 * bar) for y in levels]
        for y, z, long, broad in bars:
            chair.add("back", Box((slab, long, broad)), hinge + turn @ np.array([0.0, y, z]), turn)

    if rng.random() < 0.25:
        _add_swivel_foot(rng, chair, height, 0.5 * min(width, depth) * rng.uniform(0.8, 1.1))
    else:
        _add_corner_legs(rng, chair, height, depth, width)
    if rng.random() < 0.45:
        rest, bar = height + thick + rng.uniform(0.15, 0.28), rng.uniform(0.03, 0.08)
        for side in (-0.5 * (width + bar), 0.5 * (width + bar)):
            chair.add("arms", Box((depth, 0.04, bar)), (0.0, rest, side))
            post = rest - height
            chair.add("arms", Box((0.04, post, 0.6 * bar)), (0.4 * depth, height + 0.5 * post, side))


def build_table(rng: np.random.Generator, table: Assembly) -> None:
    """Add a rectangular, round or oval top, legs, a pedestal or panels, and perhaps a shelf."""
    height, thick = rng.uniform(0.3, 0.85), rng.uniform(0.02, 0.09)
    long = rng.uniform(0.6, 1.5)
    wide = long * rng.uniform(0.4, 1.0)
    round_top = rng.random() < 0.35
    if round_top:
        angles = np.linspace(0.0, 2.0 * math.pi, 32, endpoint=False)
        oval = tuple((0.5 * long * math.cos(a), 0.5 * wide * math.sin(a)) for a in angles)
        lying = rotation("x", 90.0)
        table.add("top", Extrusion(oval, thick), (0.0, height + 0.5 * thick, 0.0), lying)
    else:
        table.add("top", Box((long, thick, wide)), (0.0, height + 0.5 * thick, 0.0))

    # Corners of a rectangle inscribed in an oval top lie at 1 / sqrt(2) of its half axes.
    inset = 0.7 if round_top else 0.98
    style = rng.random()
    if style < 0.2:
        _add_pedestal(rng, table, height, 0.5 * wide)
    elif style < 0.35:
        for x in (-0.45, 0.45):
            panel = Box((0.04, height, 0.9 * inset * wide))
            table.add("legs", panel, (x * inset * long, 0.5 * height, 0.0))
    elif style < 0.45:
        reach = 0.42 * wide
        for i in range(3):
            x, z = math.cos(2.0 * math.pi * i / 3.0), math.sin(2.0 * math.pi * i / 3.0)
            top, foot = 0.6 * reach, reach
            table.add_strut("legs", (x * top, height, z * top), (x * foot, 0.0, z * foot), 0.03)
    else:
        _add_corner_legs(rng, table, height, inset * long, inset * wide)
        if rng.random() < 0.35:
            level = height * rng.uniform(0.15, 0.5)
            table.add("shelf", Box((0.88 * inset * long, 0.025, 0.88 * inset * wide)), (0.0, level, 0.0))


def build_lamp(rng: np.random.Generator, lamp: Assembly) -> None:
    """Add a base, a pole and a shade: standing, jointed on a desk, or hanging from the ceiling."""
    style = rng.integers(4)
    width, height = rng.uniform(0.13, 0.3), rng.uniform(0.12, 0.32)
    if style == 3:
        drop, wire = rng.uniform(0.3, 0.9), rng.uniform(0.008, 0.02)
        lamp.add("base", cylinder(rng.uniform(0.05, 0.12), rng.uniform(0.02, 0.06)), (0.0, drop, 0.0))
        lamp.add_strut("pole", (0.0, 0.0, 0.0), (0.0, drop, 0.0), wire)
        lamp.add("shade", _shade(rng, width, height), (0.0, -0.9 * height, 0.0))
        return

    foot, plinth = rng.uniform(0.1, 0.22), rng.uniform(0.02, 0.08)
    if style == 0 and rng.random() < 0.4:
        lamp.add("base", Ellipsoid((foot, 1.4 * foot, foot)), (0.0, 1.4 * foot, 0.0))
        plinth = 2.7 * foot
    elif rng.random() < 0.5:
        lamp.add("base", frustum(foot, foot * rng.uniform(0.3, 1.0), plinth))
    else:
        lamp.add("base", Box((2.0 * foot, plinth, 2.0 * foot)), (0.0, 0.5 * plinth, 0.0))
    pole = rng.uniform(0.012, 0.03)
    if style == 2:
        elbow = np.array([-rng.uniform(0.05, 0.35), plinth + rng.uniform(0.25, 0.5), 0.0])
        head = elbow + np.array([rng.uniform(0.3, 0.55), rng.uniform(0.0, 0.35), 0.0])
        lamp.add_strut("pole", (0.0, plinth, 0.0), elbow, pole)
        lamp.add_strut("pole", elbow, head, pole)
        turn = rotation("z", rng.uniform(10.0, 60.0))
        cone = Lathe(((0.7 * width, -0.8 * height), (0.25 * width, 0.0), (0.0, 0.02)))
        lamp.add("shade", cone, head, turn)
    else:
        top = plinth + (rng.uniform(0.15, 0.5) if style == 0 else rng.uniform(0.8, 1.4))
        lamp.add_strut("pole", (0.0, plinth, 0.0), (0.0, top, 0.0), pole)
        lamp.add("shade", _shade(rng, width, height), (0.0, top - 0.4 * height, 0.0))


def _add_corner_legs(
    rng: np.random.Generator, assembly: Assembly, height: float, long: float, wide: float
) -> None:
    """Add four square or round legs, straight or splayed, below the corners of a long x wide rectangle."""
    bar, splay = rng.uniform(0.03, 0.08), max(0.0, rng.uniform(-0.06, 0.1))
    square = rng.random() < 0.5
    for x in (-0.5 * (long - bar), 0.5 * (long - bar)):
        for z in (-0.5 * (wide - bar), 0.5 * (wide - bar)):
            if square:
                assembly.add("legs", Box((bar, height, bar)), (x, 0.5 * height, z))
            else:
                foot = (x + math.copysign(splay, x), 0.0, z + math.copysign(splay, z))
                assembly.add_strut("legs", foot, (x, height, z), 0.35 * bar, 0.5 * bar)


def _add_swivel_foot(rng: np.random.Generator, assembly: Assembly, height: float, reach: float) -> None:
    """Add a post on a star of four or five feet."""
    assembly.add_strut("legs", (0.0, 0.05, 0.0), (0.0, height, 0.0), rng.uniform(0.02, 0.04))
    count = int(rng.integers(4, 6))
    for i in range(count):
        angle = 2.0 * math.pi * i / count
        tip = (reach * math.cos(angle), 0.02, reach * math.sin(angle))
        assembly.add_strut("legs", (0.0, 0.07, 0.0), tip, 0.025, 0.02)


def _add_pedestal(rng: np.random.Generator, assembly: Assembly, height: float, reach: float) -> None:
    """Add a column on a round foot, or on a star."""
    if rng.random() < 0.4:
        _add_swivel_foot(rng, assembly, height, 0.8 * reach)
        return
    assembly.add("legs", cylinder(reach * rng.uniform(0.5, 0.8), 0.04))
    assembly.add_strut("legs", (0.0, 0.04, 0.0), (0.0, height, 0.0), rng.uniform(0.03, 0.08))


def _shade(rng: np.random.Generator, width: float, height: float) -> Lathe:
    """Build an open cone or drum, a dome, or a globe with its lowest point at y = 0."""
    kind = rng.integers(3)
    if kind == 0:
        return Lathe(((width, 0.0), (width * rng.uniform(0.35, 1.0), height)))
    if kind == 1:
        return dome(width, 0.9 * height)
    angles = np.linspace(-0.5 * math.pi, 0.5 * math.pi, 15)
    r = 0.7 * width
    return Lathe(tuple((max(0.0, r * math.cos(a)), r * (1.0 + math.sin(a))) for a in angles))
