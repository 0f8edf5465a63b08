import numpy as np
import pytest
import torch
from cases import CLOUDS, every_backend, every_cloud, grid, sq_distances
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from bixt3d.ops import knn
from bixt3d.ops.backends import vectorized

OP = "knn"


def queries_for(points):
    """Half of the points themselves, and some points between them."""
    return torch.cat([points[:, ::2], (points[:, :3] * 0.5 + points[:, -3:] * 0.5)], dim=1)


@every_backend(OP)
@every_cloud()
def test_no_nearer_point_is_left_out(backend, name):
    points = CLOUDS[name]
    query = queries_for(points)
    num_points = points.shape[1]
    for k in {1, (num_points + 1) // 2, num_points}:
        sq_dist, index = knn(query, points, k, backend=backend)
        assert sq_dist.shape == index.shape == (*query.shape[:2], k)
        assert index.dtype == torch.int64
        assert sq_dist.dtype == (torch.float64 if points.dtype == torch.float64 else torch.float32)
        distances = sq_distances(query, points)
        taken = np.take_along_axis(distances, index.numpy(), -1)
        np.testing.assert_allclose(sq_dist.numpy(), taken, rtol=1e-6, atol=0)
        assert (sq_dist.diff(dim=-1) >= 0).all()
        assert all(len(set(row)) == k for row in index.flatten(0, 1).tolist())
        if name.startswith("inexact"):
            kth = np.partition(distances, k - 1, axis=-1)[..., k - 1]
            assert (taken.max(-1) <= kth * (1 + 1e-6)).all()
        else:
            in_order = np.argsort(distances, axis=-1, kind="stable")[..., :k]
            np.testing.assert_array_equal(index.numpy(), in_order)


@every_backend(OP)
@every_cloud()
def test_equals_the_reference(backend, name):
    points = CLOUDS[name]
    query = queries_for(points)
    k = (points.shape[1] + 1) // 2
    for got, expected in zip(
        knn(query, points, k, backend=backend), knn(query, points, k, backend="reference"), strict=True
    ):
        assert torch.equal(got, expected)


@every_backend(OP)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axes", [1, 2, 3, 6, 17])
def test_agrees_with_a_kd_tree(backend, dtype, axes):
    generator = torch.Generator().manual_seed(axes)
    points = torch.randn(2, 60, axes, generator=generator, dtype=dtype)
    query = torch.randn(2, 11, axes, generator=generator, dtype=dtype)
    sq_dist, index = knn(query, points, 5, backend=backend)
    for b in range(2):
        distance, neighbours = cKDTree(points[b].double().numpy()).query(query[b].double().numpy(), 5)
        np.testing.assert_array_equal(index[b].numpy(), neighbours)
        np.testing.assert_allclose(sq_dist[b].sqrt().numpy(), distance, rtol=1e-5)


@every_backend(OP)
def test_far_from_the_origin_neighbours_stay_right(backend):
    # |a|² + |b|² - 2ab is of no use at 1e4 from the origin: its rounding error is larger than the cloud.
    offsets = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0.25, 0], [0, 0, 0.125]])
    sq_dist, index = knn(offsets[None, :1] + 1e4, offsets[None] + 1e4, 4, backend=backend)
    assert index.tolist() == [[[0, 3, 2, 1]]]
    assert sq_dist.tolist() == [[[0, 0.015625, 0.0625, 0.25]]]


@pytest.mark.parametrize("budget", [1, 50, 1000])
def test_distances_held_at_once_are_bounded(monkeypatch, budget):
    points, query = grid(3, 40, 3), grid(3, 17, 3, seed=1)
    expected = knn(query, points, 6, backend="torch")
    held = []
    compute = vectorized._sq_distances

    def spy(query, points):
        held.append(query.shape[0] * query.shape[1] * points.shape[1])
        return compute(query, points)

    monkeypatch.setattr(vectorized, "_sq_distances", spy)
    monkeypatch.setattr(vectorized, "CPU_BLOCK_ELEMENTS", budget)
    got = knn(query, points, 6, backend="torch")
    assert max(held) <= max(budget, 40)
    assert sum(held) == 3 * 17 * 40
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


@every_backend(OP)
@pytest.mark.parametrize(("num_clouds", "num_queries"), [(0, 4), (2, 0)])
def test_no_queries_give_no_neighbours(backend, num_clouds, num_queries):
    query, points = torch.zeros(num_clouds, num_queries, 3), torch.zeros(num_clouds, 5, 3)
    sq_dist, index = knn(query, points, 2, backend=backend)
    assert sq_dist.shape == index.shape == (num_clouds, num_queries, 2)


def test_nothing_is_differentiable():
    points = grid(1, 5, 3).requires_grad_()
    sq_dist, index = knn(points, points, 2)
    assert not sq_dist.requires_grad
    assert not index.requires_grad


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), shift=st.tuples(*[st.integers(-64, 64)] * 3), num_points=st.integers(1, 30))
def test_moving_everything_changes_nothing(seed, shift, num_points):
    points, query = grid(2, num_points, 3, seed=seed), grid(2, 7, 3, seed=seed + 1)
    by = torch.tensor(shift, dtype=torch.float32)
    k = (num_points + 1) // 2
    for got, expected in zip(knn(query + by, points + by, k), knn(query, points, k), strict=True):
        assert torch.equal(got, expected)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_the_order_of_the_points_does_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(1, 30, 3, generator=generator, dtype=torch.float64)  # no ties
    order = torch.randperm(30, generator=generator)
    sq_dist, index = knn(points[:, :6], points[:, order], 9)
    expected_sq_dist, expected_index = knn(points[:, :6], points, 9)
    assert torch.equal(order[index], expected_index)
    assert torch.equal(sq_dist, expected_sq_dist)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda q, p: knn(q, p, 9), ValueError, "k is 9, but points holds 8 points per cloud"),
        (lambda q, p: knn(q, p, 0), ValueError, "k is 0, expected at least 1"),
        (lambda q, p: knn(q, p, True), TypeError, "k has type bool, expected an int"),
        (lambda q, p: knn(q[0], p, 2), ValueError, r"query has shape \(4, 3\), expected \(B, M, D\)"),
        (lambda q, p: knn(q[:1], p, 2), ValueError, r"\(1, 4, 3\) and points has shape \(2, 8, 3\)"),
        (lambda q, p: knn(q[..., :2], p, 2), ValueError, "number of axes"),
        (lambda q, p: knn(q[..., :0], p[..., :0], 2), ValueError, r"query has shape \(2, 4, 0\), expected"),
        (
            lambda q, p: knn(q.double(), p, 2),
            TypeError,
            "query has dtype float64, expected float32, the dtype of points",
        ),
        (
            lambda q, p: knn(q.to("meta"), p, 2),
            ValueError,
            "query is on meta, expected cpu, the device of points",
        ),
        (lambda q, p: knn(q, p, 2, backend="kd"), ValueError, "backend of knn 'kd'; choose one of: .*torch"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(grid(2, 4, 3), grid(2, 8, 3))
