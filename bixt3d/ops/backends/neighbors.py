"""Backends of the reductions over neighbours: ``reference`` in torch groups first, ``cpu`` does not.

In eager mode the reference holds all (B, M, K, C) rows for a moment, but a compiler may fuse it into one kernel. The
library reads every row in place and, for the maximum, stores which neighbour held it in one byte.
"""

from typing import Any

import torch
from torch import Tensor

from . import cpu_features
from .cpu_features import TYPES, computed, run_checked, sum_uses
from .group_max import MAX_NEIGHBORS
from .vectorized import group_points


def reference_sum(features: Tensor, index: Tensor) -> Tensor:
    """Group, then sum."""
    return group_points(features, index).sum(dim=2)


def reference_max(features: Tensor, index: Tensor) -> Tensor:
    """Group to find the maxima, then gather only these, so that the gradient does not keep the groups."""
    if not (features.numel() and index.numel()):  # argmax rejects empty input
        return reference_sum(features, index)
    winner = group_points(features.detach(), index).argmax(dim=2)
    return features.gather(1, index.gather(2, winner))


def max_why_not(features: Tensor | None = None, index: Tensor | None = None, **options: Any) -> str | None:
    """Return why the library cannot run on these inputs, or None."""
    if index is not None and index.shape[-1] > MAX_NEIGHBORS:
        return f"takes at most {MAX_NEIGHBORS} neighbours"
    return cpu_features.why_not(features, index)


def cpu_max(features: Tensor, index: Tensor) -> Tensor:
    """Read every neighbour once and write the maximum of each group."""
    return _largest(features, index)[0]


def _reduce(features: Tensor, index: Tensor, winner: Tensor | None) -> Tensor:
    dtype, features, index = features.dtype, computed(features), index.contiguous()
    num_points, num_channels = features.shape[1:]
    out = features.new_empty(*index.shape[:2], num_channels)
    if out.numel():
        run_checked(
            "bixt3d_neighbors", index, num_points,
            features, *features.shape, index, index.shape[2], index.shape[1], TYPES[features.dtype], out, winner,
        )  # fmt: skip
    return out.to(dtype)


def _like_groups(features: Tensor, index: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return features.new_empty(index.shape[0], index.shape[1], features.shape[2], dtype=dtype)


@torch.library.custom_op("bixt3d::cpu_neighbor_sum", mutates_args=(), device_types="cpu")
def cpu_sum(features: Tensor, index: Tensor) -> Tensor:
    """Read every neighbour once and write the sum of each group."""
    return _reduce(features, index, None)


cpu_sum.register_fake(_like_groups)


@torch.library.custom_op("bixt3d::cpu_neighbor_max", mutates_args=(), device_types="cpu")
def _largest(features: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima (B, M, C) and, as uint8, the position in its group of the first neighbour that holds each."""
    winner = _like_groups(features, index, torch.uint8)
    return _reduce(features, index, winner), winner


@_largest.register_fake
def _(features: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return _like_groups(features, index), _like_groups(features, index, torch.uint8)


@torch.library.custom_op("bixt3d::cpu_neighbor_scatter", mutates_args=(), device_types="cpu")
def _scatter(rows: Tensor, index: Tensor, winner: Tensor | None, num_points: int) -> Tensor:
    """Add (B, M, C) rows to all neighbours of their group, (B, N, C): the transpose of the sum.

    With ``winner``, each entry goes only to the neighbour it came from: the transpose of the maximum.
    """
    return sum_uses(rows, index, None, num_points, winner)


@_scatter.register_fake
def _(rows: Tensor, index: Tensor, winner: Tensor | None, num_points: int) -> Tensor:
    return rows.new_empty(rows.shape[0], num_points, rows.shape[2])


def _keep_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.num_points = inputs[0].shape[1]


def _sum_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (index,) = ctx.saved_tensors
    return _scatter(grad, index, None, ctx.num_points), None


def _keep_winner(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[1], output[1])
    ctx.num_points = inputs[0].shape[1]


def _max_gradient(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
    return _scatter(grad, *ctx.saved_tensors, ctx.num_points), None


def _keep_places(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1], inputs[2])


def _scatter_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    index, winner = ctx.saved_tensors
    if winner is None:
        return cpu_sum(grad, index), None, None, None
    return grad.gather(1, index.gather(2, winner.long())), None, None, None


torch.library.register_autograd("bixt3d::cpu_neighbor_sum", _sum_gradient, setup_context=_keep_sum)
torch.library.register_autograd("bixt3d::cpu_neighbor_max", _max_gradient, setup_context=_keep_winner)
torch.library.register_autograd("bixt3d::cpu_neighbor_scatter", _scatter_gradient, setup_context=_keep_places)
