"""The categories of the procedural data set, and how their objects are built.

Each builder draws proportions and optional parts from the generator and adds primitives to the assembly. y is up.
Lengths are relative, since clouds are normalised later.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bixt3d.datasets.shape_assembly import Assembly, rotation
from bixt3d.datasets.shape_furniture import build_chair, build_lamp, build_table
from bixt3d.datasets.shape_lathes import Lathe, cylinder, tube
from bixt3d.datasets.shape_primitives import Box, Ellipsoid, Extrusion, Torus
from bixt3d.datasets.shape_vehicles import build_airplane, build_car, build_rocket, build_skateboard


@dataclass(frozen=True)
class Category:
    """The part names of a category, including optional parts, and the function that builds one object."""

    parts: tuple[str, ...]
    build: Callable[[np.random.Generator, Assembly], None]


def build_bottle(rng: np.random.Generator, bottle: Assembly) -> None:
    """Add a body that narrows at the shoulder, a neck, and perhaps a cap."""
    r, height = rng.uniform(0.11, 0.27), rng.uniform(0.4, 0.8)
    neck_r, shoulder = r * rng.uniform(0.22, 0.5), rng.uniform(0.05, 0.35)
    foot, waist = r * rng.uniform(0.85, 1.0), r * rng.uniform(0.75, 1.0)
    body = [(0.0, 0.0), (foot, 0.0), (r, 0.05), (waist, 0.5 * height), (r, height)]
    roundness = rng.uniform(0.0, 1.0)
    for t in np.linspace(0.0, 1.0, 8)[1:]:
        # Interpolates between a straight shoulder and a quarter of an ellipse.
        bulge = roundness * math.sqrt(1.0 - t * t) + (1.0 - roundness) * (1.0 - t)
        body.append((neck_r + (r - neck_r) * bulge, height + shoulder * t))
    bottle.add("body", Lathe(tuple(body)))
    top, length = height + shoulder, rng.uniform(0.08, 0.3)
    bottle.add("neck", Lathe(((neck_r, 0.0), (0.92 * neck_r, length))), (0.0, top, 0.0))
    if rng.random() < 0.6:
        cap = rng.uniform(0.04, 0.1)
        bottle.add("cap", cylinder(1.2 * neck_r, cap), (0.0, top + length - 0.3 * cap, 0.0))


def build_guitar(rng: np.random.Generator, guitar: Assembly) -> None:
    """Add a waisted body, a neck, and a head with pegs; upright, strings towards +z."""
    length, half = rng.uniform(0.38, 0.5), rng.uniform(0.15, 0.22)
    waist, narrow = rng.uniform(0.2, 0.38), rng.uniform(0.08, 0.25)
    depth = rng.uniform(0.03, 0.13)
    outline = []
    for a in np.linspace(0.0, 2.0 * math.pi, 28, endpoint=False):
        y = -math.cos(a)
        pinch = 1.0 - waist * math.exp(-(((y - 0.15) / 0.4) ** 2))
        outline.append((half * 1.1 * math.sin(a) * pinch * (1.0 - narrow * y), 0.5 * length * y))
    guitar.add("body", Extrusion(tuple(outline), depth))

    reach, broad = rng.uniform(0.3, 0.55), rng.uniform(0.035, 0.06)
    front, top = 0.5 * depth + 0.008, 0.5 * length + reach
    overlap = rng.uniform(0.05, 0.25) * length
    guitar.add("neck", Box((broad, reach + overlap, 0.028)), (0.0, top - 0.5 * (reach + overlap), front))
    head, tilt = rng.uniform(0.1, 0.18), rotation("x", -rng.uniform(0.0, 18.0))
    flare = rng.uniform(0.6, 1.2) * broad
    corners = ((-0.5 * broad, 0.0), (0.5 * broad, 0.0), (flare, head), (-flare, head))
    start = np.array([0.0, top, front])
    guitar.add("head", Extrusion(corners, 0.024), start, tilt)
    for y in np.linspace(0.25, 0.85, rng.integers(2, 4)) * head:
        for side in (-1.0, 1.0):
            x = side * (0.5 * broad + (flare - 0.5 * broad) * y / head)
            peg = [start + tilt @ np.array([reach_x, y, 0.0]) for reach_x in (x, x + side * 0.03)]
            guitar.add_strut("head", peg[0], peg[1], 0.008)


def build_headphones(rng: np.random.Generator, headphones: Assembly) -> None:
    """Add a band over the head, two cups, and perhaps a microphone on an arm."""
    radius, band = rng.uniform(0.4, 0.52), rng.uniform(0.015, 0.05)
    drop = rng.uniform(0.02, 0.4)
    headphones.add("band", Torus(radius, band, 0.0, math.pi))
    cup, thick = rng.uniform(0.14, 0.26), rng.uniform(0.06, 0.16)
    tall = rng.uniform(1.0, 1.3)
    flat = rng.random() < 0.6
    for side in (-1.0, 1.0):
        headphones.add_strut("band", (side * radius, -drop, 0.0), (side * radius, 0.0, 0.0), 0.9 * band)
        inner = side * (radius - 0.3 * thick)
        if flat:
            # An open cushion towards the ear, and a closed shell on the outside.
            away = rotation("z", -90.0 * side)
            headphones.add("cups", cylinder(cup, 0.7 * thick), (inner, -drop, 0.0), away)
            cushion = tube(0.5 * cup, cup * 1.05, 0.5 * thick)
            headphones.add("cups", cushion, (inner - side * 0.5 * thick, -drop, 0.0), away)
        else:
            shell = Ellipsoid((0.6 * thick, cup * tall, cup))
            headphones.add("cups", shell, (inner, -drop, 0.0))
    if rng.random() < 0.35:
        mouth = np.array([0.55 * radius, -drop - rng.uniform(0.15, 0.3), rng.uniform(0.3, 0.5)])
        headphones.add_strut("microphone", (radius, -drop - 0.6 * cup, 0.4 * cup), mouth, 0.016)
        headphones.add("microphone", Ellipsoid((0.04, 0.04, 0.04)), mouth)


def build_laptop(rng: np.random.Generator, laptop: Assembly) -> None:
    """Add a flat base and a screen, hinged at the rear edge of the base."""
    depth, thick = rng.uniform(0.58, 0.85), rng.uniform(0.02, 0.07)
    laptop.add("base", Box((depth, thick, 1.0)))
    height, lid = depth * rng.uniform(0.88, 1.02), rng.uniform(0.012, 0.035)
    turn = rotation("z", rng.uniform(65.0, 170.0) - 90.0)
    hinge = np.array([-0.5 * depth, 0.5 * thick, 0.0])
    laptop.add("screen", Box((lid, height, 1.0)), hinge + turn @ np.array([0.0, 0.5 * height, 0.0]), turn)


def build_mug(rng: np.random.Generator, mug: Assembly) -> None:
    """Add a hollow body, a round or an angular handle, and perhaps a saucer."""
    height, wall = rng.uniform(0.5, 1.1), rng.uniform(0.03, 0.06)
    low, high = rng.uniform(0.24, 0.4), rng.uniform(0.3, 0.45)
    belly = 0.5 * (low + high) * rng.uniform(0.95, 1.15)
    outer = ((0.0, 0.0), (low, 0.0), (belly, 0.5 * height), (high, height))
    inner = ((high - wall, height), (belly - wall, 0.5 * height), (low - wall, wall), (0.0, wall))
    mug.add("body", Lathe(outer + inner))

    half, thick = height * rng.uniform(0.25, 0.38), rng.uniform(0.03, 0.06)
    # The wall may be at different distances from the axis at the two ends of the handle. The handle starts at the
    # smaller distance, so that both ends touch the wall.
    start = min(belly + (low - belly) * 2.0 * half / height, belly + (high - belly) * 2.0 * half / height)
    middle = 0.5 * height
    if rng.random() < 0.7:
        handle = Torus(half, thick, -0.5 * math.pi, 0.5 * math.pi)
        mug.add("handle", handle, (start - 0.5 * wall, middle, 0.0))
    else:
        out = start + rng.uniform(0.18, 0.35)
        corners = [(start, middle - half), (out, middle - half), (out, middle + half), (start, middle + half)]
        for (x0, y0), (x1, y1) in itertools.pairwise(corners):
            mug.add_strut("handle", (x0, y0, 0.0), (x1, y1, 0.0), thick)
    if rng.random() < 0.25:
        rim = low + rng.uniform(0.2, 0.35)
        mug.add(
            "saucer", Lathe(((0.0, -0.03), (0.7 * rim, -0.03), (rim, 0.04), (0.7 * rim, 0.0), (0.0, 0.0)))
        )


CATEGORIES: dict[str, Category] = {
    "airplane": Category(("fuselage", "wings", "tail", "engines"), build_airplane),
    "bottle": Category(("body", "neck", "cap"), build_bottle),
    "car": Category(("body", "cabin", "wheels"), build_car),
    "chair": Category(("seat", "back", "legs", "arms"), build_chair),
    "guitar": Category(("body", "neck", "head"), build_guitar),
    "headphones": Category(("band", "cups", "microphone"), build_headphones),
    "lamp": Category(("base", "pole", "shade"), build_lamp),
    "laptop": Category(("base", "screen"), build_laptop),
    "mug": Category(("body", "handle", "saucer"), build_mug),
    "rocket": Category(("body", "nose", "fins", "engine"), build_rocket),
    "skateboard": Category(("deck", "trucks", "wheels"), build_skateboard),
    "table": Category(("top", "legs", "shelf"), build_table),
}
