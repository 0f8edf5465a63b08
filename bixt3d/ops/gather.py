"""Look up the features of points by index."""

from torch import Tensor

from . import checks
from .dispatch import run


def gather_points(features: Tensor, index: Tensor, *, backend: str | None = None) -> Tensor:
    """Gather rows of each cloud: ``out[b, m] = features[b, index[b, m]]``.

    Args:
        features: (B, N, C) of any dtype, coordinates included.
        index: (B, M) int64, from 0 to N-1. The range is not checked on an accelerator.
        backend: one of ``available_backends("gather_points")``; None picks the first that can run.

    Returns:
        (B, M, C), with the dtype and device of ``features``, and derivatives of any order in them.

    Raises:
        ValueError: wrong shape, different devices, an index out of range on the CPU (from the torch backend a
            RuntimeError), unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2.
    """
    checks.features_and_index(features, index, "B, M")
    return run("gather_points", backend, features, index)


def group_points(features: Tensor, index: Tensor, *, backend: str | None = None) -> Tensor:
    """Gather the rows of each group of neighbours: ``out[b, m, j] = features[b, index[b, m, j]]``.

    Args:
        features: (B, N, C) of any dtype, coordinates included.
        index: (B, M, K) int64, from 0 to N-1, as returned by ``knn`` and ``ball_query``. The range is not checked on
            an accelerator.
        backend: one of ``available_backends("group_points")``; None picks the first that can run.

    Returns:
        (B, M, K, C), with the dtype and device of ``features``, and derivatives of any order in them.

    Raises:
        ValueError: wrong shape, different devices, an index out of range on the CPU (from the torch backend a
            RuntimeError), unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2.
    """
    checks.features_and_index(features, index, "B, M, K")
    return run("group_points", backend, features, index)
