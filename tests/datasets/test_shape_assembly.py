"""Assemblies of primitives: shares by area, placement, part labels."""

import numpy as np
import pytest
from scipy import stats

from bixt3d.datasets.shape_assembly import Assembly, rotation
from bixt3d.datasets.shape_lathes import cylinder
from bixt3d.datasets.shape_primitives import Box


def rng(seed=0):
    return np.random.default_rng(seed)


def test_points_are_shared_by_area_between_pieces():
    assembly = Assembly(("large", "small"))
    assembly.add("large", Box((2.0, 2.0, 2.0)))
    assembly.add("small", Box((1.0, 1.0, 1.0)), (5.0, 0.0, 0.0))
    points, _, part = assembly.sample(rng(12), 20_000)
    assert stats.chisquare(np.bincount(part), [16_000, 4_000]).pvalue > 1e-3
    np.testing.assert_array_equal(part == 1, points[:, 0] > 3.0)


@pytest.mark.parametrize(("n", "floor"), [(1000, 8), (64, 8), (16, 2)])
def test_a_tiny_part_gets_its_handful_and_the_total_stays(n, floor):
    assembly = Assembly(("large", "absent", "tiny", "tinier"))
    assembly.add("large", Box((1.0, 1.0, 1.0)))
    assembly.add("tiny", Box((0.001, 0.001, 0.001)))
    assembly.add("tinier", Box((0.0005, 0.001, 0.001)))
    _, _, part = assembly.sample(rng(), n)
    assert np.bincount(part, minlength=4).tolist() == [n - 2 * floor, 0, floor, floor]


def test_a_piece_is_turned_before_it_is_moved():
    assembly = Assembly(("post",))
    # A quarter turn about z takes +y to -x.
    assembly.add("post", cylinder(0.1, 2.0), (0.0, 5.0, 0.0), rotation("z", 90.0))
    points, normals, _ = assembly.sample(rng(), 2000)
    low, high = points.min(axis=0), points.max(axis=0)
    np.testing.assert_allclose(low, (-2.0, 4.9, -0.1), atol=0.01)
    np.testing.assert_allclose(high, (0.0, 5.1, 0.1), atol=0.01)
    side = np.abs(normals[:, 0]) < 0.5
    away = points[side] - (0.0, 5.0, 0.0)
    assert ((away * normals[side])[:, 1:].sum(axis=1) > 0.0).all()


@pytest.mark.parametrize("end", [(1.0, 2.0, 3.0), (0.0, 0.0, -2.0), (0.0, -1.0, 0.0)])
def test_a_strut_runs_from_its_start_to_its_end(end):
    start, end = np.array([0.5, 0.5, 0.5]), np.array(end) + 0.5
    assembly = Assembly(("strut",))
    assembly.add_strut("strut", start, end, 0.2)
    points, normals, _ = assembly.sample(rng(), 1000)
    length = np.linalg.norm(end - start)
    along = (points - start) @ (end - start) / length
    across = np.linalg.norm(np.cross(points - start, (end - start) / length), axis=1)
    assert along.min() >= -1e-9
    assert along.max() <= length + 1e-9
    side = np.abs(normals @ (end - start)) < 1e-6
    np.testing.assert_allclose(across[side], 0.2, atol=1e-9)
    assert across.max() <= 0.2 + 1e-9


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_rotations_are_right_handed(axis):
    i = "xyz".index(axis)
    turn = rotation(axis, 90.0)
    basis = np.eye(3)
    np.testing.assert_allclose(turn @ basis[i], basis[i], atol=1e-12)
    np.testing.assert_allclose(turn @ basis[(i + 1) % 3], basis[(i + 2) % 3], atol=1e-12)
