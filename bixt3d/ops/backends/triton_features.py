"""Backend ``triton`` of the ops on features. The backward pass of each is again one of them.

Gathering and summing are each other's transpose, so gradients of any order use the same few custom ops. Instead of
atomic sums, the backward pass sorts the index once and sums the uses of each point in order, so results are the same in
every run. The kernels are in :mod:`.triton_feature_kernels`, which imports triton and is itself imported when an op
runs.
"""

from typing import Any

import torch
from torch import Tensor

from .. import checks
from . import feature_gradients, triton_runtime
from .triton_runtime import ceil_div, launch, power_of_2, readable

ROWS, CHANNELS = 32, 64
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COPIED = (*FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def rows_why_not(
    features: Tensor | None = None, index: Tensor | None = None, **options: object
) -> str | None:
    """Return why gathering rows cannot run on these inputs, or None."""
    if features is not None and features.dtype not in COPIED:
        return f"copies floats, integers and bools, not {checks.dtype_name(features.dtype)}"
    return triton_runtime.why_not(features)


def _block(num_channels: int) -> int:
    return min(CHANNELS, power_of_2(num_channels, at_least=16))


def _grid(num_clouds: int, num_rows: int, num_channels: int) -> tuple[int, int]:
    return num_clouds * ceil_div(num_rows, ROWS), ceil_div(num_channels, _block(num_channels))


def _sum_dtype(*inputs: Tensor) -> Any:
    import triton.language as tl

    return tl.float64 if any(x.dtype == torch.float64 for x in inputs) else tl.float32


def _launch_sum_uses(rows: Tensor, index: Tensor, weights: Tensor | None, num_points: int) -> Tensor:
    """Sum the (B, R, C) rows into (B, N, C), each into the K points that (B, R·K) ``index`` lists for it."""
    from . import triton_feature_kernels as kernels

    num_clouds, num_rows, num_channels = rows.shape
    dtype, rows = rows.dtype, readable(rows)
    weights = None if weights is None else readable(weights)
    out = rows.new_empty(num_clouds, num_points, num_channels)
    if out.numel() == 0:
        return out.to(dtype)
    # Number the points of all clouds consecutively, in 32 bits if possible, since a radix sort takes time per bit.
    total = num_clouds * num_points
    key_dtype = torch.int32 if total < 2**31 else torch.int64
    clouds = torch.arange(num_clouds, device=index.device)[:, None] * num_points
    named, order = torch.sort((index + clouds).to(key_dtype).flatten(), stable=True)
    first = torch.searchsorted(named, torch.arange(total + 1, dtype=key_dtype, device=index.device))
    launch(
        kernels.sum_uses, (total, ceil_div(num_channels, _block(num_channels))),
        rows.contiguous(), weights if weights is None else weights.contiguous(), order, first, out, num_channels,
        NEIGHBORS=index.shape[1] // max(1, num_rows), WEIGHTED=weights is not None,
        DTYPE=_sum_dtype(rows) if weights is None else _sum_dtype(rows, weights),
        CHANNELS=_block(num_channels), num_warps=2,
    )  # fmt: skip
    return out.to(dtype)


def _gather(features: Tensor, index: Tensor) -> Tensor:
    from . import triton_feature_kernels as kernels

    num_clouds, num_points, num_channels = features.shape
    num_rows = index.shape[1]
    out = features.new_empty(num_clouds, num_rows, num_channels)
    if out.numel() == 0:
        return out
    source, target = features.contiguous(), out
    if features.dtype == torch.bool:
        source, target = source.view(torch.uint8), out.view(torch.uint8)
    launch(
        kernels.copy_rows, _grid(num_clouds, num_rows, num_channels),
        source, index.contiguous(), target, num_points, num_rows, num_channels,
        ROWS=ROWS, CHANNELS=_block(num_channels),
    )  # fmt: skip
    return out


def _scatter_sum(rows: Tensor, index: Tensor, num_points: int) -> Tensor:
    return _launch_sum_uses(rows, index, None, num_points)


def _interpolate(features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    from . import triton_feature_kernels as kernels

    num_clouds, num_points, num_channels = features.shape
    num_rows = index.shape[1]
    dtype, features, weights = features.dtype, readable(features), readable(weights)
    out = features.new_empty(num_clouds, num_rows, num_channels)
    if out.numel() == 0:
        return out.to(dtype)
    launch(
        kernels.interpolate_rows, _grid(num_clouds, num_rows, num_channels),
        features.contiguous(), index.contiguous(), weights.contiguous(), out,
        num_points, num_rows, num_channels,
        DTYPE=_sum_dtype(features, weights), ROWS=ROWS, CHANNELS=_block(num_channels),
    )  # fmt: skip
    return out.to(dtype)


def _spread(rows: Tensor, index: Tensor, weights: Tensor, num_points: int) -> Tensor:
    """Add each row, weighted, to the three points it was interpolated from: the transpose of interpolation."""
    return _launch_sum_uses(rows, index.flatten(1), weights, num_points)


@torch.library.custom_op("bixt3d::triton_row_products", mutates_args=())
def _row_products(rows: Tensor, features: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    from . import triton_feature_kernels as kernels

    num_clouds, num_points, num_channels = features.shape
    num_rows = index.shape[1]
    rows, features = readable(rows), readable(features)
    out = readable(rows.new_empty(index.shape, dtype=dtype))
    if out.numel() == 0:
        return out.to(dtype)
    launch(
        kernels.multiply_rows, (num_clouds * ceil_div(num_rows, ROWS),),
        rows.contiguous(), features.contiguous(), index.contiguous(), out,
        num_points, num_rows, num_channels,
        DTYPE=_sum_dtype(rows, out), ROWS=ROWS, CHANNELS=_block(num_channels),
    )  # fmt: skip
    return out.to(dtype)


@_row_products.register_fake
def _(rows: Tensor, features: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    return rows.new_empty(index.shape, dtype=dtype)


def _keep_tensors(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])


def _row_products_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    rows, features, index = ctx.saved_tensors
    ops = torch.ops.bixt3d
    by_features = ops.triton_spread(rows, index, grad, features.shape[1])
    return ops.triton_interpolate(features, index, grad), by_features, None, None


gather_points, group_points, three_interpolate = feature_gradients.register(
    "triton", _gather, _scatter_sum, _interpolate, _spread, row_products=_row_products
)
torch.library.register_autograd(
    "bixt3d::triton_row_products", _row_products_backward, setup_context=_keep_tensors
)
