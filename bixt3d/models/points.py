"""Check the points given to a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def fewest_points(groupings: Iterable[tuple[int, int]]) -> int:
    """Return the minimum number of points for successive groupings, given as (neighbours, reduction)."""
    needed, reduction = 1, 1
    for num_neighbors, factor in groupings:
        needed = max(needed, num_neighbors * reduction)
        reduction *= factor
    return max(needed, reduction)


def enough_points(points: Tensor, min_points: int) -> None:
    """Check that clouds ``(B, N, C)`` have at least ``min_points`` points.

    A traced graph is not checked here, since it takes any number of points. Its ops check when it runs.

    Raises:
        ValueError: there are fewer points.
    """
    if torch.compiler.is_compiling() or points.dim() != 3 or points.shape[1] >= min_points:
        return
    raise ValueError(
        f"points: expected at least {min_points} in each cloud (min_points of the model), got {points.shape[1]}; give "
        "more, or repeat some."
    )


def check_in_channels(in_channels: int) -> None:
    """Check that a model is built for xyz, or for xyz and normal.

    Raises:
        ValueError: ``in_channels`` is neither 3 nor 6.
    """
    if in_channels not in (3, 6):
        raise ValueError(f"in_channels: expected 3 (xyz) or 6 (xyz and normal), got {in_channels}.")
