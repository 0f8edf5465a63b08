"""Exact nearest neighbours."""

import torch
from torch import Tensor

from . import checks
from .dispatch import run
from .precision import accumulation_dtype


def knn(query: Tensor, points: Tensor, k: int, *, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """Find the ``k`` nearest points of each query, nearest first.

    ``index[b, m, j] = i`` means that ``points[b, i]`` is the j-th nearest to ``query[b, m]``, and
    ``sq_dist[b, m, j] = ||query[b, m] - points[b, i]||²``, the sum of the squared differences axis by axis.
    Equally near points are ordered by index. A query that is itself one of the points finds itself, at distance zero.

    Args:
        query: (B, M, D) float16, bfloat16, float32 or float64, finite. D is 3 for xyz.
        points: (B, N, D) of the same dtype and device.
        k: K, from 1 to N.
        backend: one of ``available_backends("knn")``; None picks the first that can run.

    Returns:
        sq_dist (B, M, K), float64 for float64 input and float32 otherwise, in the squared unit of the points,
        and index (B, M, K) int64. Neither is differentiable. For a gradient through the distances, compute them again
        as ``(query[:, :, None] - group_points(points, index)).square().sum(-1)``.

    Raises:
        ValueError: wrong shape, ``k`` above N, different devices, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: for its use on point clouds, Qi et al., "PointNet++", 2017, section 3.2.
    """
    checks.query_and_points(query, points, axes="D")
    checks.count("k", k)
    checks.enough_points("k", k, points)
    return _knn(query.detach(), points.detach(), k, backend or "")


@torch.library.custom_op("bixt3d::knn", mutates_args=())
def _knn(query: Tensor, points: Tensor, k: int, backend: str) -> tuple[Tensor, Tensor]:
    return run("knn", backend, query, points, k)


@_knn.register_fake
def _(query: Tensor, points: Tensor, k: int, backend: str) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], query.shape[1], k)
    return (
        query.new_empty(shape, dtype=accumulation_dtype(query.dtype)),
        query.new_empty(shape, dtype=torch.int64),
    )
