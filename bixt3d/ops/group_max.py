"""Max-pooling over the neighbours of a group."""

from torch import Tensor

from . import checks
from .dispatch import run


def group_max(grouped: Tensor, *, backend: str | None = None) -> Tensor:
    """Take the largest number over the neighbours of each group, channel by channel: ``grouped.amax(dim=2)``.

    Args:
        grouped: (B, M, K, C) floating point, K at least 1.
        backend: a name that ``available_backends("group_max")`` lists; None takes the first that runs.

    Returns:
        (B, M, C), dtype and device of ``grouped``; NaN where a neighbour is NaN. Differentiable any number of times.
        The gradient goes to the neighbours that hold the maximum: "cpu" and "torch" give it to the first of several
        equal ones, "reference" deals it out among them.

    Raises:
        ValueError: wrong shape, no neighbours, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Qi et al., "PointNet++", 2017, section 3.2; Ma et al., "PointMLP", 2022, section 3.1.
    """
    checks.groups(grouped)
    return run("group_max", backend, grouped)
