"""Reduce the features of each point's neighbours without materialising the groups."""

from torch import Tensor

from . import checks
from .dispatch import run


def neighbor_sum(features: Tensor, index: Tensor, *, backend: str | None = None) -> Tensor:
    """Sum the features of each group of neighbours: ``group_points(features, index).sum(dim=2)``.

    Args:
        features: (B, N, C) floating point.
        index: (B, M, K) int64, from 0 to N-1, K at least 1, as returned by ``knn``. The range is not checked on an
            accelerator.
        backend: one of ``available_backends("neighbor_sum")``; None picks the first that can run.

    Returns:
        (B, M, C), with the dtype and device of ``features``, and derivatives of any order in them. Half precision is
        summed in float32.

    Raises:
        ValueError: wrong shape, different devices, an index out of range on the CPU (from the reference a
            RuntimeError), unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2, with grouping and summing exchanged.
    """
    checks.neighborhoods(features, index)
    return run("neighbor_sum", backend, features, index)


def neighbor_max(features: Tensor, index: Tensor, *, backend: str | None = None) -> Tensor:
    """Max-pool the features of each group of neighbours: ``group_max(group_points(features, index))``.

    Args:
        features: (B, N, C) floating point.
        index: (B, M, K) int64, from 0 to N-1, K at least 1, as returned by ``knn``. The range is not checked on an
            accelerator.
        backend: one of ``available_backends("neighbor_max")``; None picks the first that can run.

    Returns:
        (B, M, C), with the dtype and device of ``features``, and derivatives of any order in them. NaN where a
        neighbour is NaN. The gradient goes to one neighbour that holds the maximum, with "cpu" to the first.

    Raises:
        ValueError: wrong shape, different devices, an index out of range on the CPU (from the reference a
            RuntimeError), unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2; Wang et al., "Dynamic Graph CNN", 2019, section 3.1.
    """
    checks.neighborhoods(features, index)
    return run("neighbor_max", backend, features, index)
