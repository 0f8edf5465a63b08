"""Reduce the features of each point's neighbours without writing them down."""

from torch import Tensor

from . import checks
from .dispatch import run


def neighbor_sum(features: Tensor, index: Tensor, *, backend: str | None = None) -> Tensor:
    """Add up the features of each group of neighbours: ``group_points(features, index).sum(dim=2)``.

    Args:
        features: (B, N, C) floating point.
        index: (B, M, K) int64, from 0 to N-1, K at least 1, as ``knn`` returns it; not checked on an accelerator.
        backend: a name that ``available_backends("neighbor_sum")`` lists; None takes the first that runs.

    Returns:
        (B, M, C), dtype and device of ``features``; half precision is added up in float32. Differentiable in
        ``features`` any number of times.

    Raises:
        ValueError: wrong shape, different devices, an index out of range on the CPU (from the reference a
            RuntimeError), unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2; the order of grouping and summing is exchanged.
    """
    checks.neighborhoods(features, index)
    return run("neighbor_sum", backend, features, index)


def neighbor_max(features: Tensor, index: Tensor, *, backend: str | None = None) -> Tensor:
    """Take the largest feature of each group, channel by channel: ``group_max(group_points(features, index))``.

    Args:
        features: (B, N, C) floating point.
        index: (B, M, K) int64, from 0 to N-1, K at least 1, as ``knn`` returns it; not checked on an accelerator.
        backend: a name that ``available_backends("neighbor_max")`` lists; None takes the first that runs.

    Returns:
        (B, M, C), dtype and device of ``features``; NaN where a neighbour is NaN. Differentiable in ``features``
        any number of times; the gradient goes to one neighbour that holds the maximum, from "cpu" to the first.

    Raises:
        ValueError: wrong shape, different devices, an index out of range on the CPU (from the reference a
            RuntimeError), unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2; Wang et al., "Dynamic Graph CNN", 2019, section 3.1.
    """
    checks.neighborhoods(features, index)
    return run("neighbor_max", backend, features, index)
