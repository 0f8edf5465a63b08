"""Backend ``cpu`` of the ops on coordinates: the compiled library in ``csrc/``, called on the memory of the tensors.

The library is independent of torch's headers and version. Distances, order and ties match the reference bit for bit,
with any number of threads and any instruction set. Calls release the GIL.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..precision import squared_radius, widen
from . import cpu_library, vectorized

# Highest instruction set to use: 0 portable, 1 AVX2, 2 AVX-512. The library lowers it to what the machine supports.
LEVEL = 2
MAX_POINTS = 2**31 - 1  # the library uses 32-bit indices


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why the library cannot take these tensors (or run on this machine, if none are given), or None."""
    for value in checks.tensors_among(inputs, options):
        if value.device.type != "cpu":
            return "needs tensors on the CPU"
        if value.dtype == torch.float64:
            return "takes float16, bfloat16 and float32, not float64"
        if value.ndim == 3 and value.shape[1] >= MAX_POINTS:
            return f"takes at most {MAX_POINTS - 1} points per cloud"
    return cpu_library.load()[1]


def call(name: str, *args: Any) -> int:
    """Call a function of the library and return its result. Tensors are passed as the address of their memory.

    Raises:
        NotImplementedError: there is no library.
        MemoryError: the function returned 1, since it could not allocate its work space.
    """
    library, reason = cpu_library.load()
    if library is None:
        raise NotImplementedError(f"backend 'cpu' {reason}")
    plain = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else x for x in args]
    answer = getattr(library, name)(*plain, torch.get_num_threads(), LEVEL)
    if answer == 1:
        raise MemoryError(
            f"{name}: not enough memory for its work space; pass fewer clouds or points at a time"
        )
    return int(answer)


def _float32(x: Tensor) -> Tensor:
    return widen(x).contiguous()


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Scan all points for every pick, or in a large cloud only the boxes whose distances the pick may change."""
    points, start = _float32(points), start.contiguous()
    index = torch.empty(points.shape[0], num_samples, dtype=torch.int64)
    call("bixt3d_farthest_point_sample", points, *points.shape[:2], num_samples, start, index)
    return index


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Scan all points, or in a large cloud only the boxes that may hold a neighbour."""
    query, points = _float32(query), _float32(points)
    sq_dist = torch.empty(query.shape[0], query.shape[1], k)
    index = torch.empty(sq_dist.shape, dtype=torch.int64)
    sizes = (query.shape[0], query.shape[1], points.shape[1], points.shape[2])
    if index.numel():
        call("bixt3d_knn", query, points, *sizes, k, sq_dist, index)
    return sq_dist, index


def ball_query(query: Tensor, points: Tensor, radius: float, max_neighbors: int) -> Tensor:
    """Scan the points in order until there are enough hits. In a large cloud, scan a prefix, then the nearby boxes."""
    query, points = _float32(query), _float32(points)
    index = torch.empty(query.shape[0], query.shape[1], max_neighbors, dtype=torch.int64)
    limit = squared_radius(radius, query.dtype)
    if index.numel():
        sizes = (query.shape[0], query.shape[1], points.shape[1])
        call("bixt3d_ball_query", query, points, *sizes, limit, max_neighbors, index)
    return index


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Find the three nearest, and repeat the last one if the cloud has fewer points."""
    return vectorized.three_of(*knn(query, points, min(3, points.shape[1])))
