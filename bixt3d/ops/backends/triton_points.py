"""Backend ``triton`` of the ops on coordinates: one launch each, without a distance matrix in memory.

The kernels are in :mod:`.triton_point_kernels`, which imports triton and is itself imported when an op runs.
"""

import math

import torch
from torch import Tensor

from ..precision import squared_radius, widen
from . import triton_runtime
from .triton_runtime import ceil_div, launch, power_of_2

# Largest float32 cloud that fits in the registers of one program: four numbers per point, 8 points per thread. With
# more points, or more than half as many in float64, registers spill.
REGISTER_POINTS = 8192
TILE_POINTS = 4096
MAX_NEIGHBORS = 128  # nearest_k keeps its lists in registers
LIST_ELEMENTS = 1024  # list entries per program of nearest_k, over all its queries
ROWS, COLUMNS = 16, 64


def _axes_first(x: Tensor) -> Tensor:
    """Return ``x`` as contiguous (B, D, N), in the dtype in which distances are computed."""
    return widen(x).mT.contiguous()


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Sample all clouds in one launch, one program per cloud."""
    from . import triton_point_kernels as kernels

    num_clouds, num_points, _ = points.shape
    index = torch.empty(num_clouds, num_samples, dtype=torch.int64, device=points.device)
    if num_clouds == 0:
        return index
    axes, start = _axes_first(points), start.contiguous()
    if num_points * axes.element_size() <= REGISTER_POINTS * 4:
        block = power_of_2(num_points, at_least=32)
        launch(
            kernels.farthest_in_registers, (num_clouds,),
            axes, start, index, num_points, num_samples,
            BLOCK=block, num_warps=min(32, max(1, block // 128)), enable_fp_fusion=False,
        )  # fmt: skip
        return index
    nearest = axes.new_full((num_clouds, num_points), math.inf)
    launch(
        kernels.farthest_in_memory, (num_clouds,),
        axes, start, nearest, index, num_points, num_samples,
        BLOCK=TILE_POINTS, num_warps=32, enable_fp_fusion=False,
    )  # fmt: skip
    return index


def knn_why_not(
    query: Tensor | None = None, points: Tensor | None = None, k: int | None = None, **options: object
) -> str | None:
    """Return why nearest neighbours cannot run, or None. Keys of 64 bits hold a float32 distance and an index."""
    if points is not None and points.dtype == torch.float64:
        return "takes float16, bfloat16 and float32, not float64"
    if k is not None and k > MAX_NEIGHBORS:
        return f"keeps at most {MAX_NEIGHBORS} neighbours"
    return triton_runtime.why_not(points)


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keep a sorted list for every query while iterating over its cloud."""
    from . import triton_point_kernels as kernels

    num_clouds, num_queries, num_axes = query.shape
    query, points = _axes_first(query), _axes_first(points)
    sq_dist = query.new_empty(num_clouds, num_queries, k)
    index = torch.empty(sq_dist.shape, dtype=torch.int64, device=query.device)
    if num_clouds * num_queries == 0:
        return sq_dist, index
    width = power_of_2(k, at_least=16)
    rows = min(ROWS, LIST_ELEMENTS // width)
    launch(
        kernels.nearest_k, (num_clouds * ceil_div(num_queries, rows),),
        query, points, sq_dist, index, num_queries, points.shape[2], num_axes, k,
        ROWS=rows, WIDTH=width, enable_fp_fusion=False,
    )  # fmt: skip
    return sq_dist, index


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Keep three neighbours for every query while iterating over its cloud."""
    from . import triton_point_kernels as kernels

    num_clouds, num_queries, _ = query.shape
    query, points = _axes_first(query), _axes_first(points)
    sq_dist = query.new_empty(num_clouds, num_queries, 3)
    index = torch.empty(sq_dist.shape, dtype=torch.int64, device=query.device)
    if num_clouds * num_queries == 0:
        return sq_dist, index
    launch(
        kernels.nearest_three, (num_clouds * ceil_div(num_queries, ROWS),),
        query, points, sq_dist, index, num_queries, points.shape[2],
        ROWS=ROWS, COLUMNS=COLUMNS, enable_fp_fusion=False,
    )  # fmt: skip
    return sq_dist, index


def ball_query(query: Tensor, points: Tensor, radius: float, max_neighbors: int) -> Tensor:
    """Collect the hits of every query in order until it has enough."""
    from . import triton_point_kernels as kernels

    num_clouds, num_queries, _ = query.shape
    query, points = _axes_first(query), _axes_first(points)
    limit = query.new_full((1,), squared_radius(radius, query.dtype))
    index = torch.empty(num_clouds, num_queries, max_neighbors, dtype=torch.int64, device=query.device)
    if num_clouds * num_queries == 0:
        return index
    launch(
        kernels.first_in_ball, (num_clouds * ceil_div(num_queries, ROWS),),
        query, points, limit, index, num_queries, points.shape[2], max_neighbors,
        ROWS=ROWS, COLUMNS=COLUMNS, enable_fp_fusion=False,
    )  # fmt: skip
    return index
