"""Max-pooling over the neighbours of a group."""

from torch import Tensor

from . import checks
from .dispatch import run


def group_max(grouped: Tensor, *, backend: str | None = None) -> Tensor:
    """Max-pool each channel over the neighbours of each group: ``grouped.amax(dim=2)``.

    Args:
        grouped: (B, M, K, C) floating point, K at least 1.
        backend: one of ``available_backends("group_max")``; None picks the first that can run.

    Returns:
        (B, M, C), with the dtype and device of ``grouped``, NaN where a neighbour is NaN. There are derivatives of any
        order. Where several neighbours hold the maximum, "cpu" and "torch" pass the gradient to the first of them, and
        "reference" divides it equally among them.

    Raises:
        ValueError: wrong shape, no neighbours, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2; Ma et al., "PointMLP", 2022, section 3.1.
    """
    checks.groups(grouped)
    return run("group_max", backend, grouped)
