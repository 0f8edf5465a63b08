"""Primitives of the procedural data set: equations, areas, normals, uniformity."""

import math

import numpy as np
import pytest
from scipy import special, stats

from bixt3d.datasets.shape_lathes import Lathe, cylinder, dome, frustum, tube
from bixt3d.datasets.shape_primitives import Box, Ellipsoid, Extrusion, Torus

TRAPEZOID = ((-1.0, -0.5), (1.0, -0.5), (0.4, 0.5), (-0.6, 0.5))


def rng(seed=0):
    return np.random.default_rng(seed)


PRIMITIVES = {
    "box": Box((1.0, 2.0, 0.5)),
    "cylinder": cylinder(0.7, 1.5),
    "cone": frustum(0.8, 0.0, 1.2),
    "sphere": Ellipsoid((0.9, 0.9, 0.9)),
    "ellipsoid": Ellipsoid((0.4, 1.5, 0.8)),
    "torus": Torus(1.0, 0.3),
    "tube": tube(0.5, 0.8, 1.0),
    "extrusion": Extrusion(TRAPEZOID, 0.6),
}


def residual(name, p):
    """Return how far points are from satisfying the equation of the surface, written out by hand."""
    x, y, z = p.T
    radius = np.hypot(x, z)
    if name == "box":
        return np.max(np.abs(p) / (0.5, 1.0, 0.25), axis=1) - 1.0
    if name == "cylinder":
        return np.max([radius - 0.7, np.abs(y - 0.75) - 0.75], axis=0)
    if name == "cone":
        return np.max([radius - 0.8 * (1.0 - y / 1.2), -y], axis=0)
    if name == "sphere":
        return x * x + y * y + z * z - 0.81
    if name == "ellipsoid":
        return (x / 0.4) ** 2 + (y / 1.5) ** 2 + (z / 0.8) ** 2 - 1.0
    if name == "torus":
        return (np.hypot(x, y) - 1.0) ** 2 + z * z - 0.09
    if name == "tube":
        return np.max([np.abs(radius - 0.65) - 0.15, np.abs(y - 0.5) - 0.5], axis=0)
    # The extrusion: half planes of the trapezoid's slanted and level sides.
    sides = [np.abs(y) - 0.5, x - (1.0 - 0.6 * (y + 0.5)), -x + (-1.0 + 0.4 * (y + 0.5)), np.abs(z) - 0.3]
    return np.max(sides, axis=0)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_points_lie_on_the_surface(name):
    points, _ = PRIMITIVES[name].sample(rng(), 3000)
    np.testing.assert_allclose(residual(name, points), 0.0, atol=1e-9)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_normals_are_unit_and_outward(name):
    points, normals = PRIMITIVES[name].sample(rng(), 3000)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-12)
    # Every residual is negative inside and positive outside.
    assert (residual(name, points + 1e-4 * normals) > 0.0).all()
    inside = residual(name, points - 1e-4 * normals) < 0.0
    # Within 1e-4 of an edge a step inwards may leave through the neighbouring face.
    assert inside.mean() > 0.995


@pytest.mark.parametrize("name", ["sphere", "box"])
def test_normals_of_convex_solids_point_away_from_the_centre(name):
    points, normals = PRIMITIVES[name].sample(rng(), 1000)
    assert ((points * normals).sum(axis=1) > 0.0).all()


def test_normals_of_a_sphere_are_its_radii():
    points, normals = PRIMITIVES["sphere"].sample(rng(), 500)
    np.testing.assert_allclose(normals, points / 0.9, atol=1e-12)


@pytest.mark.parametrize(
    ("primitive", "area"),
    [
        (Box((1.0, 2.0, 3.0)), 22.0),
        (cylinder(2.0, 3.0), 20.0 * math.pi),
        (frustum(3.0, 0.0, 4.0), 24.0 * math.pi),
        (Lathe(((1.0, 0.0), (2.0, 0.0))), 3.0 * math.pi),
        (tube(1.0, 2.0, 3.0), 24.0 * math.pi),
        (Ellipsoid((2.0, 2.0, 2.0)), 16.0 * math.pi),
        (Torus(3.0, 1.0), 12.0 * math.pi**2),
        (Torus(3.0, 1.0, 0.0, math.pi), 6.0 * math.pi**2),
        (Extrusion(((0.0, 0.0), (3.0, 0.0), (0.0, 4.0)), 2.0), 36.0),
        (Extrusion(((0.0, 4.0), (3.0, 0.0), (0.0, 0.0)), 2.0), 36.0),
    ],
)
def test_area_in_hand_computed_cases(primitive, area):
    assert primitive.area == pytest.approx(area)


def test_area_of_an_ellipsoid_against_the_elliptic_integral():
    for a, b, c in ((0.4, 1.5, 0.8), (1.0, 0.1, 0.1), (1.0, 1.0, 0.1)):
        exact = 4.0 * math.pi * special.elliprg((a * b) ** 2, (a * c) ** 2, (b * c) ** 2)
        assert Ellipsoid((a, b, c)).area == pytest.approx(exact, rel=0.012)


def test_area_of_a_dome_tends_to_the_half_sphere():
    assert dome(1.0, 1.0, segments=200).area == pytest.approx(2.0 * math.pi, rel=1e-4)


def chi_square(counts, areas):
    areas = np.asarray(areas, dtype=float)
    return stats.chisquare(counts, counts.sum() * areas / areas.sum()).pvalue


def test_a_cylinder_is_sampled_uniformly_by_area():
    points, normals = cylinder(0.7, 1.5).sample(rng(3), 40_000)
    cap = np.abs(normals[:, 1]) > 0.5
    top = cap & (points[:, 1] > 0.75)
    cap_area, side_area = math.pi * 0.49, 2.0 * math.pi * 0.7 * 1.5
    assert (
        chi_square(np.array([top.sum(), (cap & ~top).sum(), (~cap).sum()]), [cap_area, cap_area, side_area])
        > 1e-3
    )
    # On a cap the squared radius, on the side the height and the angle are uniform.
    radius_squared = (points[cap, 0] ** 2 + points[cap, 2] ** 2) / 0.49
    assert stats.kstest(radius_squared, "uniform").pvalue > 1e-3
    assert stats.kstest(points[~cap, 1] / 1.5, "uniform").pvalue > 1e-3
    angle = np.arctan2(points[~cap, 2], points[~cap, 0]) / (2.0 * math.pi) + 0.5
    assert stats.kstest(angle, "uniform").pvalue > 1e-3


def test_a_cone_is_sampled_uniformly_by_area():
    points, normals = frustum(0.8, 0.0, 1.2).sample(rng(4), 40_000)
    side = normals[:, 1] > 0.0
    # The side of the smaller cone above height y has the share (1 - y/h)^2.
    assert stats.kstest((1.0 - points[side, 1] / 1.2) ** 2, "uniform").pvalue > 1e-3


def test_a_box_is_sampled_uniformly_by_area():
    points, normals = Box((1.0, 2.0, 0.5)).sample(rng(5), 40_000)
    face = 2 * np.abs(normals).argmax(axis=1) + (normals.sum(axis=1) > 0.0)
    assert chi_square(np.bincount(face, minlength=6), [1.0, 1.0, 0.5, 0.5, 2.0, 2.0]) > 1e-3
    front = points[face == 5]
    cells = np.histogram2d(front[:, 0], front[:, 1], bins=4, range=((-0.5, 0.5), (-1.0, 1.0)))[0].ravel()
    assert chi_square(cells, np.ones(16)) > 1e-3


def test_a_sphere_is_sampled_uniformly_by_area():
    # Archimedes: the area between two parallel planes is proportional to their distance.
    points, _ = Ellipsoid((0.9, 0.9, 0.9)).sample(rng(6), 40_000)
    for axis in range(3):
        assert stats.kstest(points[:, axis] / 1.8 + 0.5, "uniform").pvalue > 1e-3


def test_an_ellipsoid_of_revolution_is_sampled_uniformly_by_area():
    # A finely divided lathe of the same shape is an independent sampler.
    half = 0.5 * math.pi
    angles = np.linspace(-half, half, 400)
    lathe = Lathe(tuple((max(0.0, 0.4 * math.cos(a)), 1.5 * math.sin(a)) for a in angles))
    ellipsoid, _ = Ellipsoid((0.4, 1.5, 0.4)).sample(rng(7), 20_000)
    turned, _ = lathe.sample(rng(8), 20_000)
    assert stats.ks_2samp(ellipsoid[:, 1], turned[:, 1]).pvalue > 1e-3
    assert (
        stats.kstest(np.arctan2(ellipsoid[:, 2], ellipsoid[:, 0]) / (2 * math.pi) + 0.5, "uniform").pvalue
        > 1e-3
    )


def test_a_torus_arc_is_sampled_uniformly_by_area_within_its_angles():
    points, _ = Torus(1.0, 0.6, 0.5, 2.5).sample(rng(9), 40_000)
    along = np.arctan2(points[:, 1], points[:, 0])
    assert along.min() >= 0.5
    assert along.max() <= 2.5
    assert stats.kstest((along - 0.5) / 2.0, "uniform").pvalue > 1e-3
    # The outer half of the tube (beyond R) has the share 1/2 + (r/R)/pi, by integrating 1 + (r/R) cos a.
    outer = np.hypot(points[:, 0], points[:, 1]) > 1.0
    share = 0.5 + 0.6 / math.pi
    assert chi_square(np.array([outer.sum(), (~outer).sum()]), [share, 1.0 - share]) > 1e-3


def test_an_extrusion_is_sampled_uniformly_by_area():
    points, normals = Extrusion(TRAPEZOID, 0.6).sample(rng(10), 40_000)
    cap = np.abs(normals[:, 2]) > 0.5
    walls = 0.6 * (2.0 + 1.0 + math.hypot(0.6, 1.0) + math.hypot(0.4, 1.0))
    assert chi_square(np.array([cap.sum(), (~cap).sum()]), [2.0 * 1.5, walls]) > 1e-3
    # Of a trapezoid with parallel sides 2 and 1, the share below height t is (2 t - t^2 / 2) / 1.5.
    t = points[cap, 1] + 0.5
    assert stats.kstest((2.0 * t - 0.5 * t * t) / 1.5, "uniform").pvalue > 1e-3
    square = Extrusion(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), 0.1).sample(rng(11), 20_000)
    on_cap = square[0][np.abs(square[1][:, 2]) > 0.5]
    cells = np.histogram2d(on_cap[:, 0], on_cap[:, 1], bins=4, range=((0, 1), (0, 1)))[0].ravel()
    assert chi_square(cells, np.ones(16)) > 1e-3


@pytest.mark.parametrize("name", PRIMITIVES)
@pytest.mark.parametrize("n", [0, 1, 100])
def test_sampling_is_a_function_of_the_generator_state(name, n):
    points, normals = PRIMITIVES[name].sample(rng(2), n)
    again, _ = PRIMITIVES[name].sample(rng(2), n)
    assert points.shape == normals.shape == (n, 3)
    np.testing.assert_array_equal(points, again)


@pytest.mark.parametrize(
    "outline",
    [
        ((0.0, 0.0), (1.0, 0.0)),
        ((0, 0), (9, 0), (9, 1), (1, 1), (1, 9), (0, 9)),  # a thin L: its mean lies outside
    ],
)
def test_an_impossible_outline_is_refused(outline):
    with pytest.raises(ValueError, match="visible from their mean"):
        Extrusion(outline, 1.0)
