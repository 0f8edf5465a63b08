"""Backend ``pointnet2_ops`` of the ops on features. It runs only when named.

The package takes channels first (at the cost of two transposes), float32 and 32-bit indices, and has only first
derivatives. Here its forward and backward functions are custom ops, each the gradient of another, so that gradients of
any order exist. Its backward passes use atomic sums, so their last bits vary from run to run.

``group_points`` uses ``gather_operation`` too, since ``grouping_operation`` makes the same copy.
"""

from typing import Any

import torch
from torch import Tensor

from .. import checks
from . import feature_gradients, pointnet2_ops

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why the ops on features cannot run, or None."""
    tensors = checks.tensors_among(inputs, options)
    for x in (*tensors[:1], *tensors[2:]):  # all but the index
        if x.dtype not in DTYPES:
            return f"takes float16, bfloat16 and float32, not {checks.dtype_name(x.dtype)}"
    return pointnet2_ops.why_not(*tensors)


def _channels_first(rows: Tensor) -> Tensor:
    return rows.float().mT.contiguous()


def _rows(channels_first: Tensor, dtype: torch.dtype) -> Tensor:
    return channels_first.mT.to(dtype, memory_format=torch.contiguous_format)


def _gather(features: Tensor, index: Tensor) -> Tensor:
    from pointnet2_ops import pointnet2_utils

    if index.numel() == 0:
        return features.new_empty(features.shape[0], index.shape[1], features.shape[2])
    gathered = pointnet2_utils.gather_operation(_channels_first(features), index.int().contiguous())
    return _rows(gathered, features.dtype)


def _scatter_sum(rows: Tensor, index: Tensor, num_points: int) -> Tensor:
    from pointnet2_ops import pointnet2_utils

    if index.numel() == 0:
        return rows.new_zeros(rows.shape[0], num_points, rows.shape[2])
    index = index.int().contiguous()
    gradient = pointnet2_utils._ext.gather_points_grad(_channels_first(rows), index, num_points)
    return _rows(gradient, rows.dtype)


def _interpolate(features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    from pointnet2_ops import pointnet2_utils

    if index.numel() == 0:
        return features.new_empty(features.shape[0], index.shape[1], features.shape[2])
    index, weights = index.int().contiguous(), weights.float().contiguous()
    interpolated = pointnet2_utils.three_interpolate(_channels_first(features), index, weights)
    return _rows(interpolated, features.dtype)


def _spread(rows: Tensor, index: Tensor, weights: Tensor, num_points: int) -> Tensor:
    from pointnet2_ops import pointnet2_utils

    if index.numel() == 0:
        return rows.new_zeros(rows.shape[0], num_points, rows.shape[2])
    index, weights = index.int().contiguous(), weights.float().contiguous()
    gradient = pointnet2_utils._ext.three_interpolate_grad(_channels_first(rows), index, weights, num_points)
    return _rows(gradient, rows.dtype)


gather_points, group_points, three_interpolate = feature_gradients.register(
    "pointnet2", _gather, _scatter_sum, _interpolate, _spread
)
