from pathlib import Path

import numpy as np
import pytest
import torch
from cases import CLOUDS, every_backend, every_cloud, grid, sq_distances
from hypothesis import given, settings
from hypothesis import strategies as st

from bixt3d.ops import farthest_point_sample

OP = "farthest_point_sample"
GOLDEN = Path(__file__).parents[1] / "golden" / "pointmlp_grouper_anchor_noxyz.npz"


@every_backend(OP)
@every_cloud()
def test_every_pick_is_farthest_from_those_before_it(backend, name):
    points = CLOUDS[name]
    num_samples = points.shape[1]
    index = farthest_point_sample(points, num_samples, backend=backend)
    assert index.shape == points.shape[:2]
    assert index.dtype == torch.int64
    for distances, picks in zip(sq_distances(points, points), index.numpy(), strict=True):
        assert picks[0] == 0
        nearest = distances[0]
        for pick in picks[1:]:
            if name.startswith("inexact"):
                assert nearest[pick] >= nearest.max() * (1 - 1e-6)
            else:
                assert pick == np.argmax(nearest)  # numpy returns the first, the lowest index
            nearest = np.minimum(nearest, distances[pick])


@every_backend(OP)
@every_cloud()
def test_equals_the_reference(backend, name):
    points = CLOUDS[name]
    num_samples = (points.shape[1] + 1) // 2
    start = torch.arange(len(points)) % points.shape[1]
    got = farthest_point_sample(points, num_samples, start=start, backend=backend)
    assert torch.equal(got, farthest_point_sample(points, num_samples, start=start, backend="reference"))
    assert torch.equal(start, torch.arange(len(points)) % points.shape[1])


@every_backend(OP)
def test_reproduces_the_golden_file(backend):
    golden = np.load(GOLDEN)
    points = torch.from_numpy(golden["xyz"])
    expected = torch.from_numpy(golden["fps_index"])
    assert torch.equal(farthest_point_sample(points, expected.shape[1], backend=backend), expected)


@every_backend(OP)
def test_points_near_the_origin_are_candidates(backend):
    square = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0], [0, 0, 0], [0.01, 0, 0]])
    index = farthest_point_sample(square[None], 6, backend=backend)
    # By hand: the opposite corner, the two other corners, the centre, and what is left.
    assert index.tolist() == [[0, 3, 1, 2, 4, 5]]


@every_backend(OP)
def test_of_equally_far_points_the_lowest_index_is_picked(backend):
    # Thousands of points on two positions: a parallel maximum without order would pick another copy.
    points = torch.zeros(1, 4099, 3)
    points[0, 1001:, 0] = 1
    assert farthest_point_sample(points[:, :2003], 3, backend=backend).tolist() == [[0, 1001, 0]]
    if backend != "reference":
        assert farthest_point_sample(points, 3, start=4000, backend=backend).tolist() == [[4000, 0, 0]]


def test_start_is_one_index_or_one_for_every_cloud():
    points = grid(3, 20, 3)
    assert farthest_point_sample(points, 4, start=7)[:, 0].tolist() == [7, 7, 7]
    start = torch.tensor([4, 0, 19])
    each = farthest_point_sample(points, 4, start=start)
    for b in range(3):
        assert torch.equal(each[b : b + 1], farthest_point_sample(points[b : b + 1], 4, start=int(start[b])))


def test_a_generator_draws_a_start_for_every_cloud():
    points = grid(1, 50, 3).expand(64, -1, -1)
    index = farthest_point_sample(points, 3, generator=torch.Generator().manual_seed(5))
    again = farthest_point_sample(points, 3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(index, again)
    assert len(set(index[:, 0].tolist())) > 20
    assert torch.equal(index, farthest_point_sample(points, 3, start=index[:, 0].clone()))


@every_backend(OP)
def test_no_clouds_give_no_indices(backend):
    index = farthest_point_sample(torch.zeros(0, 5, 3), 2, backend=backend)
    assert index.shape == (0, 2)
    assert index.dtype == torch.int64


def test_nothing_is_differentiable():
    assert not farthest_point_sample(grid(1, 5, 3).requires_grad_(), 2).requires_grad


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), shift=st.tuples(*[st.integers(-64, 64)] * 3), num_points=st.integers(1, 40))
def test_moving_a_cloud_changes_nothing(seed, shift, num_points):
    points = grid(2, num_points, 3, seed=seed)
    moved = points + torch.tensor(shift, dtype=torch.float32)
    index = farthest_point_sample(points, num_points)
    assert torch.equal(index, farthest_point_sample(moved, num_points))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_the_order_of_the_points_does_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(1, 30, 3, generator=generator, dtype=torch.float64)  # no ties
    order = torch.randperm(30, generator=generator)
    shuffled_start = int((order == 0).nonzero())
    index = farthest_point_sample(points[:, order], 12, start=shuffled_start)
    assert torch.equal(order[index], farthest_point_sample(points, 12))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: farthest_point_sample(p, 9), ValueError, "num_samples is 9, but points holds 8 points"),
        (lambda p: farthest_point_sample(p, 0), ValueError, "num_samples is 0, expected at least 1"),
        (lambda p: farthest_point_sample(p, 2.0), TypeError, "num_samples has type float, expected an int"),
        (lambda p: farthest_point_sample(p[:, :0], 1), ValueError, "points holds 0 points"),
        (lambda p: farthest_point_sample(p[0], 2), ValueError, r"shape \(8, 3\), expected \(B, N, 3\); add"),
        (lambda p: farthest_point_sample(p.mT, 2), ValueError, r"shape \(2, 3, 8\), expected \(B, N, 3\)"),
        (lambda p: farthest_point_sample(p.int(), 2), TypeError, "points has dtype int32, expected float16"),
        (
            lambda p: farthest_point_sample(p.numpy(), 2),
            TypeError,
            "points has type ndarray, expected a torch",
        ),
        (lambda p: farthest_point_sample(p, 2, start=8), ValueError, "start is 8, .* 0 to 7"),
        (lambda p: farthest_point_sample(p, 2, start=-1), ValueError, "start is -1, .* 0 to 7"),
        (lambda p: farthest_point_sample(p, 2, start=0.5), TypeError, "start has type float"),
        (
            lambda p: farthest_point_sample(p, 2, start=torch.tensor([0, 8])),
            ValueError,
            "start holds 8, .* 0 to 7",
        ),
        (
            lambda p: farthest_point_sample(p, 2, start=torch.tensor([-1, 0])),
            ValueError,
            "start holds -1, .* 0 to 7",
        ),
        (
            lambda p: farthest_point_sample(p, 2, start=torch.tensor([[0], [1]])),
            ValueError,
            r"start has shape \(2, 1\), expected \(2,\)",
        ),
        (
            lambda p: farthest_point_sample(p, 2, start=torch.tensor([0, 1]).to("meta")),
            ValueError,
            "start is on meta, expected cpu, the device of points",
        ),
        (lambda p: farthest_point_sample(p, 2, start=True), TypeError, "start has type bool"),
        (
            lambda p: farthest_point_sample(p, 2, start=torch.tensor([0, 1]), generator=torch.Generator()),
            ValueError,
            r"start is a tensor of shape \(2,\) and a generator is given too",
        ),
        (
            lambda p: farthest_point_sample(p, 2, start=torch.tensor([0])),
            ValueError,
            r"start has shape \(1,\), expected \(2,\)",
        ),
        (
            lambda p: farthest_point_sample(p, 2, start=torch.tensor([0.0, 1.0])),
            TypeError,
            "start has dtype float32, expected int64",
        ),
        (
            lambda p: farthest_point_sample(p, 2, start=3, generator=torch.Generator()),
            ValueError,
            "start is 3 and a generator is given too",
        ),
        (lambda p: farthest_point_sample(p, 2, generator=7), TypeError, "generator has type int"),
        (
            lambda p: farthest_point_sample(p, 2, backend="fast"),
            ValueError,
            "unknown backend of farthest_point_sample 'fast'; choose one of: .*reference",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(grid(2, 8, 3))
