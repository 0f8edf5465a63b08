"""Backend ``cpu`` of the ops on features: the compiled library copies, sums and interpolates rows.

The backward pass sums the gradients of a point in the order of the index, whatever the number of threads, and in
float32 for half precision. The library detects indices out of range as it reads them. Compared with the torch backend
on one core, grouping 8 clouds of 1,024 x 24 rows of 64 channels is 2.6 (forward) and 3.6 (backward) times faster, and
interpolation 8 and 7 times (``OMP_NUM_THREADS=1 python benchmarks/ops.py --clock cpu``).

While torch.compile or torch.export traces, ``backend=None`` leaves these ops to torch, so that the compiler can see
and fuse them and the graph runs on any device. If named, they are nodes of the graph.
"""

from typing import Any

import torch
from torch import Tensor

from .. import checks
from . import cpu_library, feature_gradients
from .cpu import call

# FeatureType in csrc/kernels.h. float16 is computed in float32.
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why the library cannot run on these inputs, or None."""
    tensors = checks.tensors_among(inputs, options)
    if any(x.device.type != "cpu" for x in tensors):
        return "needs tensors on the CPU"
    if tensors and tensors[0].is_complex():
        return f"copies floats, integers and bools, not {checks.dtype_name(tensors[0].dtype)}"
    return cpu_library.why_not()


def run_checked(name: str, index: Tensor, num_points: int, *args: Any) -> None:
    """Call the library, and raise ValueError if an index is out of range."""
    if call(name, *args):
        checks.index_in_range(index, num_points)
        raise AssertionError(f"{name} refused an index that lies inside its cloud")


def computed(x: Tensor, *others: Tensor) -> Tensor:
    """Return ``x``, contiguous, in the dtype of the computation: float64 if one of ``others`` is."""
    if any(other.dtype == torch.float64 for other in others):
        return x.double().contiguous()
    return x.to(x.dtype if x.dtype in TYPES else torch.float32).contiguous()


def _weights_beside(features: Tensor, weights: Tensor) -> Tensor:
    return weights.to(torch.float64 if features.dtype == torch.float64 else torch.float32).contiguous()


def sum_uses(
    rows: Tensor, index: Tensor, weights: Tensor | None, num_points: int, winner: Tensor | None = None
) -> Tensor:
    """Sum the (B, M, C) rows into (B, N, C), each into all points that (B, M, K) ``index`` lists for it.

    With ``winner``, (B, M, C) uint8, each entry goes only to that one of its K points.
    """
    dtype, rows = rows.dtype, computed(rows, *(() if weights is None else (weights,)))
    out = rows.new_empty(rows.shape[0], num_points, rows.shape[2])
    if out.numel() == 0:
        return out.to(dtype)
    index = index.contiguous()
    weights = None if weights is None else _weights_beside(rows, weights)
    run_checked(
        "bixt3d_scatter", index, num_points,
        rows, *rows.shape, index, weights, winner, index.shape[2], TYPES[rows.dtype], num_points, out,
    )  # fmt: skip
    return out.to(dtype)


def _gather(features: Tensor, index: Tensor) -> Tensor:
    num_clouds, num_points, num_channels = features.shape
    features, index = features.contiguous(), index.contiguous()
    out = features.new_empty(num_clouds, index.shape[1], num_channels)
    row_bytes = num_channels * features.element_size()
    if index.numel():
        run_checked(
            "bixt3d_gather", index, num_points,
            features, num_clouds, num_points, row_bytes, index, index.shape[1], out,
        )  # fmt: skip
    return out


def _scatter_sum(rows: Tensor, index: Tensor, num_points: int) -> Tensor:
    return sum_uses(rows, index[:, :, None], None, num_points)


def _interpolate(features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    dtype, features = features.dtype, computed(features, weights)
    index, weights = index.contiguous(), _weights_beside(features, weights)
    num_clouds, num_points, num_channels = features.shape
    out = features.new_empty(num_clouds, index.shape[1], num_channels)
    if index.numel():
        run_checked(
            "bixt3d_interpolate", index, num_points,
            features, *features.shape, index, weights, index.shape[1], TYPES[features.dtype], out,
        )  # fmt: skip
    return out.to(dtype)


def _spread(rows: Tensor, index: Tensor, weights: Tensor, num_points: int) -> Tensor:
    """Add each row, weighted, to the three points it was interpolated from: the transpose of interpolation."""
    return sum_uses(rows, index, weights, num_points)


gather_points, group_points, three_interpolate = feature_gradients.register(
    "cpu", _gather, _scatter_sum, _interpolate, _spread
)
