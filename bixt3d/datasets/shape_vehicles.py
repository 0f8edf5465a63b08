"""Build the vehicles of the procedural data set; all face +x, except the rocket, which stands upright."""

from __future__ import annotations

import math

import numpy as np

from bixt3d.datasets.shape_assembly import Assembly, rotation
from bixt3d.datasets.shape_lathes import Lathe, cylinder, frustum
from bixt3d.datasets.shape_primitives import Box, Extrusion


def build_airplane(rng: np.random.Generator, plane: Assembly) -> None:
    """Add a streamlined fuselage, one or two pairs of wings, a tail, and perhaps engines."""
    r = rng.uniform(0.04, 0.09)
    nose, taper = rng.uniform(0.06, 0.25), rng.uniform(0.25, 0.5)
    hull = [(0.0, -0.5), (0.25 * r, -0.5), (0.65 * r, -0.5 + 0.5 * taper), (r, -0.5 + taper)]
    hull += [(r * math.cos(a), 0.5 - nose * (1.0 - math.sin(a))) for a in np.linspace(0.0, 0.5 * math.pi, 7)]
    plane.add("fuselage", Lathe(tuple(hull)), turn=rotation("z", -90.0))

    span, root = rng.uniform(0.3, 0.6), rng.uniform(0.12, 0.26)
    tip, sweep = root * rng.uniform(0.25, 1.0), span * rng.uniform(0.0, 0.7)
    wing = _fin(root, tip, span, sweep, 0.014)
    at_x, dihedral = rng.uniform(0.0, 0.15), rng.uniform(-3.0, 9.0)
    biplane = sweep < 0.25 * span and rng.random() < 0.4
    levels: tuple[float, ...] = (-0.7 * r, 1.6 * r) if biplane else (rng.uniform(-0.7, 0.8) * r,)
    for height in levels:
        for side in (-1.0, 1.0):
            plane.add("wings", wing, (at_x, height, 0.0), rotation("x", side * (90.0 - dihedral)))
    if biplane:
        for side in (-0.75 * span, 0.75 * span):
            plane.add_strut("wings", (at_x, levels[0], side), (at_x, levels[1], side), 0.008)

    fin_height, fin_root = rng.uniform(0.12, 0.24), rng.uniform(0.1, 0.17)
    fin_sweep = rng.uniform(0.2, 0.8) * fin_height
    plane.add("tail", _fin(fin_root, 0.6 * fin_root, fin_height, fin_sweep, 0.014), (-0.4, 0.3 * r, 0.0))
    t_tail = rng.random() < 0.3
    at = (-0.4 - 0.95 * fin_sweep, 0.3 * r + fin_height, 0.0) if t_tail else (-0.42, 0.3 * r, 0.0)
    stabiliser = _fin(0.8 * fin_root, 0.5 * fin_root, span * rng.uniform(0.3, 0.45), 0.4 * fin_sweep, 0.012)
    for side in (-1.0, 1.0):
        plane.add("tail", stabiliser, at, rotation("x", side * 90.0))

    nacelle_radius, length = rng.uniform(0.025, 0.045), rng.uniform(0.1, 0.18)
    nacelle = frustum(0.7 * nacelle_radius, nacelle_radius, length)
    layouts: tuple[tuple[float, ...], ...] = ((), (0.35,), (0.3, 0.62), (0.45,))
    for at_span in layouts[rng.integers(4)]:
        for side in (-1.0, 1.0):
            x = at_x + 0.5 * root - at_span * sweep - 0.7 * length
            y = levels[0] - nacelle_radius + at_span * span * math.sin(math.radians(dihedral))
            plane.add("engines", nacelle, (x, y, side * at_span * span), rotation("z", -90.0))


def build_car(rng: np.random.Generator, car: Assembly) -> None:
    """Add a low body, a cabin (saloon, estate, pickup or van) and four wheels."""
    width, height = rng.uniform(0.34, 0.48), rng.uniform(0.11, 0.2)
    radius, ground = rng.uniform(0.065, 0.11), rng.uniform(0.2, 0.7)
    low = -ground * radius
    hood, nose = height * rng.uniform(0.7, 1.0), height * rng.uniform(0.4, 0.7)
    side = ((-0.5, low), (0.49, low), (0.5, nose), (0.45, hood), (0.2, height), (-0.47, height), (-0.5, nose))
    car.add("body", Extrusion(side, width))

    rear, front = ((-0.35, 0.2), (-0.46, 0.22), (-0.02, 0.24), (-0.48, 0.4))[rng.integers(4)]
    rear, front = rear + rng.uniform(-0.02, 0.05), front + rng.uniform(-0.05, 0.02)
    roof, screen, tail = rng.uniform(0.11, 0.24), rng.uniform(0.12, 0.35), rng.uniform(0.02, 0.25)
    screen, tail = screen * (front - rear), tail * (front - rear)
    cabin = ((rear, height), (front, height), (front - screen, height + roof), (rear + tail, height + roof))
    car.add("cabin", Extrusion(cabin, width * rng.uniform(0.8, 0.96)))

    tyre, axle = rng.uniform(0.05, 0.09), rng.uniform(0.27, 0.35)
    for x in (-axle, axle):
        for z in (-0.5 * width - 0.2 * tyre, 0.5 * width - 0.8 * tyre):
            car.add("wheels", cylinder(radius, tyre), (x, low, z), rotation("x", 90.0))


def build_rocket(rng: np.random.Generator, rocket: Assembly) -> None:
    """Add a cylindrical body, a pointed nose, three or four fins, and perhaps an engine nozzle."""
    r, height = rng.uniform(0.06, 0.16), rng.uniform(0.5, 0.95)
    low = r * rng.uniform(0.75, 1.0)
    rocket.add("body", frustum(low, r, height))
    length, blunt = rng.uniform(0.12, 0.4), rng.uniform(0.5, 1.0)
    steps = np.linspace(0.0, 1.0, 9)
    nose = tuple((r * (1.0 - t ** (1.0 / blunt)), height + length * t) for t in steps)
    rocket.add("nose", Lathe(nose))

    count, root = int(rng.integers(3, 5)), height * rng.uniform(0.18, 0.4)
    out, tip = rng.uniform(0.08, 0.24), root * rng.uniform(0.2, 0.9)
    # The outline starts at the upper corner of the root and runs down. With a large drop, fins extend below the body.
    drop = root * rng.uniform(0.2, 1.1)
    outline = ((0.0, root), (0.0, 0.0), (out, root - drop - tip), (out, root - drop))
    fin = Extrusion(outline, 0.014)
    for i in range(count):
        turn = rotation("y", 360.0 * i / count)
        rocket.add("fins", fin, turn @ np.array([0.97 * low, 0.0, 0.0]), turn)
    if rng.random() < 0.5:
        flame = rng.uniform(0.05, 0.12)
        rocket.add("engine", Lathe(((0.8 * low, -flame), (0.4 * low, 0.0))))


def build_skateboard(rng: np.random.Generator, board: Assembly) -> None:
    """Add a deck with raised or flat ends, two trucks and four wheels."""
    width, flat = rng.uniform(0.17, 0.32), rng.uniform(0.55, 0.8)
    deck, rise = 0.02, rng.uniform(0.0, 32.0)
    board.add("deck", Box((flat, deck, width)))
    end = tuple((0.5 * width * math.sin(a), 0.5 * width * math.cos(a)) for a in np.linspace(0.0, math.pi, 12))
    straight = rng.uniform(0.0, 0.08)
    outline = ((0.0, 0.5 * width), *((x + straight, y) for x, y in end), (0.0, -0.5 * width))
    for side in (0.0, 180.0):
        # Turn the outline from the xy into the xz plane, raise its far end, and point it away from the deck.
        turn = rotation("y", side) @ rotation("z", rise) @ rotation("x", 90.0)
        at = rotation("y", side) @ np.array([0.5 * flat, 0.0, 0.0])
        board.add("deck", Extrusion(outline, deck), at, turn)

    radius, tyre = rng.uniform(0.03, 0.055), rng.uniform(0.035, 0.06)
    axle = -0.5 * deck - radius * rng.uniform(1.15, 1.5)
    at_x, track = 0.5 * flat * rng.uniform(0.7, 0.95), 0.5 * width * rng.uniform(0.85, 1.05)
    for x in (-at_x, at_x):
        board.add_strut("trucks", (x, axle, -track), (x, axle, track), 0.012)
        board.add("trucks", Box((0.07, -axle - 0.5 * deck, 0.05)), (x, 0.5 * (axle - 0.5 * deck), 0.0))
        for z in (-track - 0.5 * tyre, track - 0.5 * tyre):
            board.add("wheels", cylinder(radius, tyre), (x, axle, z), rotation("x", 90.0))


def _fin(root: float, tip: float, span: float, sweep: float, thickness: float) -> Extrusion:
    """Build a wing that extends along y from a root centred on x = 0, with its tip ``sweep`` further back."""
    corners = (
        (-0.5 * root, 0.0),
        (0.5 * root, 0.0),
        (0.5 * tip - sweep, span),
        (-0.5 * tip - sweep, span),
    )
    return Extrusion(corners, thickness)
