import numpy as np
import pytest
import torch
from cases import CLOUDS, every_backend, every_cloud, grid, sq_distances
from hypothesis import given, settings
from hypothesis import strategies as st

from bixt3d.ops import ball_query
from bixt3d.ops.backends import vectorized

OP = "ball_query"


def expected_index(query, points, radius, max_neighbors):
    index = np.empty((*query.shape[:2], max_neighbors), dtype=np.int64)
    for where in np.ndindex(*query.shape[:2]):
        distances = sq_distances(query, points)[where]
        hits = np.flatnonzero(distances <= radius**2)[:max_neighbors]
        index[where] = hits[0] if len(hits) else np.argmin(distances)
        index[where][: len(hits)] = hits
    return torch.from_numpy(index)


@every_backend(OP)
@every_cloud()
def test_the_lowest_hits_in_order(backend, name):
    points = CLOUDS[name]
    # Some queries are points, some lie far from all of them.
    query = torch.cat([points[:, :5], points[:, :2] + 2], dim=1)
    for radius, max_neighbors in ((0.25, 3), (0.5, 7), (0.0078125, 2), (64.0, points.shape[1] + 2)):
        index = ball_query(query, points, radius, max_neighbors, backend=backend)
        assert index.dtype == torch.int64
        assert torch.equal(index, expected_index(query, points, radius, max_neighbors))
        assert torch.equal(index, ball_query(query, points, radius, max_neighbors, backend="reference"))


@every_backend(OP)
def test_by_hand(backend):
    points = torch.tensor([[[3.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 0], [0, 0, -2]]])
    query = torch.tensor([[[0.0, 0, 0], [9, 0, 0], [-1, 0, 0]]])
    assert ball_query(query, points, 2.0, 4, backend=backend).tolist() == [
        [[1, 2, 3, 4], [0, 0, 0, 0], [1, 3, 1, 1]]
    ]
    assert ball_query(query, points, 2.0, 2, backend=backend).tolist() == [[[1, 2], [0, 0], [1, 3]]]


@every_backend(OP)
def test_without_a_hit_the_nearest_point_of_lowest_index_is_repeated(backend):
    points = torch.tensor([[[5.0, 0, 0], [0, 3, 0], [3, 0, 0]]])
    assert ball_query(torch.zeros(1, 1, 3), points, 1.0, 3, backend=backend).tolist() == [[[1, 1, 1]]]


@every_backend(OP)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [0.1, 0.2, 0.3, 0.7, 1.1])
def test_a_point_at_the_radius_is_inside(backend, dtype, radius):
    points = torch.tensor([[[9.0, 9, 9], [0, radius, 0]]], dtype=dtype)
    query = torch.zeros(1, 1, 3, dtype=dtype)
    assert ball_query(query, points, radius, 1, backend=backend).item() == 1
    just_outside = torch.nextafter(points, torch.full_like(points, 99.0))
    both = torch.cat([just_outside[:, 1:], points[:, 1:]], dim=1)
    assert ball_query(query, both, radius, 1, backend=backend).item() == 1


@pytest.mark.parametrize("budget", [1, 50, 1000])
def test_blocks_do_not_change_the_result(monkeypatch, budget):
    points, query = grid(3, 40, 3), grid(3, 17, 3, seed=1)
    expected = ball_query(query, points, 0.3, 6, backend="torch")
    monkeypatch.setattr(vectorized, "CPU_BLOCK_ELEMENTS", budget)
    assert torch.equal(ball_query(query, points, 0.3, 6, backend="torch"), expected)


@every_backend(OP)
@pytest.mark.parametrize(("num_clouds", "num_queries"), [(0, 4), (2, 0)])
def test_no_queries_give_no_neighbours(backend, num_clouds, num_queries):
    query, points = torch.zeros(num_clouds, num_queries, 3), torch.zeros(num_clouds, 5, 3)
    assert ball_query(query, points, 0.1, 2, backend=backend).shape == (num_clouds, num_queries, 2)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    shift=st.tuples(*[st.integers(-64, 64)] * 3),
    radius=st.sampled_from([0.0625, 0.25, 0.5, 1.0]),
)
def test_moving_everything_changes_nothing(seed, shift, radius):
    points, query = grid(2, 21, 3, seed=seed), grid(2, 7, 3, seed=seed + 1)
    by = torch.tensor(shift, dtype=torch.float32)
    expected = ball_query(query, points, radius, 5)
    assert torch.equal(ball_query(query + by, points + by, radius, 5), expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda q, p: ball_query(q, p, 0.0, 2), ValueError, "radius is 0.0, expected a positive finite"),
        (lambda q, p: ball_query(q, p, float("nan"), 2), ValueError, "radius is nan"),
        (lambda q, p: ball_query(q, p, float("inf"), 2), ValueError, "radius is inf"),
        (lambda q, p: ball_query(q, p, True, 2), TypeError, "radius has type bool, expected a float"),
        (lambda q, p: ball_query(q, p, "1", 2), TypeError, "radius has type str, expected a float"),
        (lambda q, p: ball_query(q, p, 0.1, 0), ValueError, "max_neighbors is 0, expected at least 1"),
        (lambda q, p: ball_query(q, p[:, :0], 0.1, 2), ValueError, r"points has shape \(2, 0, 3\)"),
        (lambda q, p: ball_query(q.mT, p, 0.1, 2), ValueError, r"query has shape \(2, 3, 4\), expected"),
        (
            lambda q, p: ball_query(q.half(), p, 0.1, 2),
            TypeError,
            "query has dtype float16, expected float32",
        ),
        (lambda q, p: ball_query(q, p, 0.1, 2, backend="x"), ValueError, "unknown backend of ball_query 'x'"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(grid(2, 4, 3), grid(2, 8, 3))
