"""Neighbours within a radius."""

import torch
from torch import Tensor

from . import checks
from .dispatch import run


def ball_query(
    query: Tensor, points: Tensor, radius: float, max_neighbors: int, *, backend: str | None = None
) -> Tensor:
    """Find up to ``max_neighbors`` points within ``radius`` of each query.

    With the hits ``H[b, m] = {i : ||query[b, m] - points[b, i]||² <= radius²}`` in ascending order,
    ``index[b, m, j]`` is the j-th of them: the lowest indices, not the nearest points. If there are fewer than
    ``max_neighbors`` hits, the first is repeated. If there are none, the nearest point is repeated (the lowest index
    among equally near ones). ``radius`` is rounded to the dtype of the distances before it is squared.

    Args:
        query: (B, M, 3) float16, bfloat16, float32 or float64, finite. Distances are computed in float32, or in
            float64 for float64 input.
        points: (B, N, 3) of the same dtype and device, N at least 1.
        radius: positive and finite, in the unit of the points.
        max_neighbors: K, at least 1; it may exceed N.
        backend: one of ``available_backends("ball_query")``; None picks the first that can run.

    Returns:
        index (B, M, K) int64 on the device of ``points``. Nothing is differentiable.

    Raises:
        ValueError: wrong shape or value, empty clouds, different devices, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2. The closed ball and the result without hits are this toolkit's.
    """
    checks.query_and_points(query, points)
    checks.radius(radius)
    checks.count("max_neighbors", max_neighbors)
    checks.not_empty(points)
    return _ball_query(query.detach(), points.detach(), float(radius), max_neighbors, backend or "")


@torch.library.custom_op("bixt3d::ball_query", mutates_args=())
def _ball_query(query: Tensor, points: Tensor, radius: float, max_neighbors: int, backend: str) -> Tensor:
    return run("ball_query", backend, query, points, radius, max_neighbors)


@_ball_query.register_fake
def _(query: Tensor, points: Tensor, radius: float, max_neighbors: int, backend: str) -> Tensor:
    return query.new_empty((query.shape[0], query.shape[1], max_neighbors), dtype=torch.int64)
