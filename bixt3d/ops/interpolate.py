"""Interpolate features from a coarse set of points to a finer one."""

import torch
from torch import Tensor

from . import checks
from .dispatch import run
from .precision import accumulation_dtype


def three_nn(query: Tensor, points: Tensor, *, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """Find the three nearest points of each query, nearest first.

    The order and the distances are those of ``knn(query, points, 3)``. In a cloud of one or two points the last
    neighbour is repeated, so that shapes stay the same and weights that sum to one still give an average.

    Args:
        query: (B, M, 3) float16, bfloat16, float32 or float64, finite.
        points: (B, N, 3) of the same dtype and device, N at least 1.
        backend: one of ``available_backends("three_nn")``; None picks the first that can run.

    Returns:
        sq_dist (B, M, 3), float64 for float64 input and float32 otherwise, in the squared unit of the points,
        and index (B, M, 3) int64. Neither is differentiable, so weights computed from ``sq_dist`` carry no gradient to
        the points. For a gradient, compute the distances again as
        ``(query[:, :, None] - group_points(points, index)).square().sum(-1)``, as FeaturePropagation does.

    Raises:
        ValueError: wrong shape, empty clouds, different devices, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.4.
    """
    checks.query_and_points(query, points)
    checks.not_empty(points)
    return _three_nn(query.detach(), points.detach(), backend or "")


@torch.library.custom_op("bixt3d::three_nn", mutates_args=())
def _three_nn(query: Tensor, points: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return run("three_nn", backend, query, points)


@_three_nn.register_fake
def _(query: Tensor, points: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    shape = (query.shape[0], query.shape[1], 3)
    return (
        query.new_empty(shape, dtype=accumulation_dtype(query.dtype)),
        query.new_empty(shape, dtype=torch.int64),
    )


def three_interpolate(
    features: Tensor, index: Tensor, weights: Tensor, *, backend: str | None = None
) -> Tensor:
    """Sum three weighted rows: ``out[b, m] = sum_j weights[b, m, j] * features[b, index[b, m, j]]``.

    Args:
        features: (B, N, C) float16, bfloat16, float32 or float64.
        index: (B, M, 3) int64, from 0 to N-1, as returned by ``three_nn``. The range is not checked on an accelerator.
        weights: (B, M, 3) of any of these dtypes. They are not normalised: for an average, make them sum to one.
        backend: one of ``available_backends("three_interpolate")``; None picks the first that can run.

    Returns:
        (B, M, C), with the dtype and device of ``features``, computed in the wider of the two dtypes, and derivatives
        of any order in ``features`` and ``weights``. Points get a gradient only through weights that were computed
        from them differentiably (see :func:`three_nn`).

    Raises:
        ValueError: wrong shape, different devices, an index out of range on the CPU (from the torch backend a
            RuntimeError), unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.4, equation 2.
    """
    checks.features_and_index(features, index, "B, M, 3")
    checks.interpolation_weights(weights, features, index)
    return run("three_interpolate", backend, features, index, weights)
