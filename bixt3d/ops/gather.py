"""Look up the features of points by index."""

from torch import Tensor

from . import checks
from .dispatch import run


def gather_points(features: Tensor, index: Tensor, *, backend: str | None = None) -> Tensor:
    """Pick rows from each cloud: ``out[b, m] = features[b, index[b, m]]``.

    Args:
        features: (B, N, C) of any dtype; coordinates serve as well.
        index: (B, M) int64, from 0 to N-1; not checked on an accelerator.
        backend: a name that ``available_backends("gather_points")`` lists; None takes the first that runs.

    Returns:
        (B, M, C), dtype and device of ``features``, differentiable in them any number of times.

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
    """Pick the rows of each group of neighbours: ``out[b, m, j] = features[b, index[b, m, j]]``.

    Args:
        features: (B, N, C) of any dtype; coordinates serve as well.
        index: (B, M, K) int64, from 0 to N-1, as ``knn`` and ``ball_query`` return it; not checked on an
            accelerator.
        backend: a name that ``available_backends("group_points")`` lists; None takes the first that runs.

    Returns:
        (B, M, K, C), dtype and device of ``features``, differentiable in them any number of times.

    Raises:
        ValueError: wrong shape, different devices, an index out of range on the CPU (from the torch backend a
            RuntimeError), unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2.
    """
    checks.features_and_index(features, index, "B, M, K")
    return run("group_points", backend, features, index)
