"""Backend ``cpu``: the compiled library in ``csrc/``, called on the memory of the tensors.

It needs neither torch's headers nor its version. Distances, order and ties are those of the reference, bit for
bit, on any number of threads and any instruction set. Calls release the interpreter lock.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..precision import squared_radius, widen
from . import cpu_library, vectorized

# The instruction sets: 0 portable, 1 AVX2, 2 AVX-512. The library lowers what the machine does not have.
LEVEL = 2
MAX_POINTS = 2**31 - 1  # indices are 32 bits wide inside the library


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why these tensors, or without any why this machine, cannot be served; None where they can."""
    for value in checks.tensors_among(inputs, options):
        if value.device.type != "cpu":
            return "needs tensors on the CPU"
        if value.dtype == torch.float64:
            return "takes float16, bfloat16 and float32, not float64"
        if value.ndim == 3 and value.shape[1] >= MAX_POINTS:
            return f"takes at most {MAX_POINTS - 1} points a cloud"
    return cpu_library.load()[1]


def call(name: str, *args: Any) -> int:
    """Call a function of the library, tensors by the address of their memory, and return what it returns.

    Raises:
        NotImplementedError: there is no library.
        MemoryError: the function returned 1.
    """
    library, reason = cpu_library.load()
    if library is None:
        raise NotImplementedError(f"backend 'cpu' {reason}")
    plain = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else x for x in args]
    answer = getattr(library, name)(*plain, torch.get_num_threads(), LEVEL)
    if answer == 1:
        raise MemoryError(f"{name}: no memory left for its work space; take fewer clouds or points at a time")
    return int(answer)


def _float32(x: Tensor) -> Tensor:
    return widen(x).contiguous()


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Pass over all points for every pick, or in a large cloud over the boxes that the pick may change."""
    points, start = _float32(points), start.contiguous()
    index = torch.empty(points.shape[0], num_samples, dtype=torch.int64)
    call("bixt3d_farthest_point_sample", points, *points.shape[:2], num_samples, start, index)
    return index


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Pass over all points, or in a large cloud over the boxes that may hold a neighbour."""
    query, points = _float32(query), _float32(points)
    sq_dist = torch.empty(query.shape[0], query.shape[1], k)
    index = torch.empty(sq_dist.shape, dtype=torch.int64)
    sizes = (query.shape[0], query.shape[1], points.shape[1], points.shape[2])
    if index.numel():
        call("bixt3d_knn", query, points, *sizes, k, sq_dist, index)
    return sq_dist, index


def ball_query(query: Tensor, points: Tensor, radius: float, max_neighbors: int) -> Tensor:
    """Walk through the cloud in order until the ball is full, in a large one then through the boxes it meets."""
    query, points = _float32(query), _float32(points)
    index = torch.empty(query.shape[0], query.shape[1], max_neighbors, dtype=torch.int64)
    limit = squared_radius(radius, query.dtype)
    if index.numel():
        sizes = (query.shape[0], query.shape[1], points.shape[1])
        call("bixt3d_ball_query", query, points, *sizes, limit, max_neighbors, index)
    return index


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Take the three nearest, and repeat the last one where the cloud has fewer."""
    return vectorized.three_of(*knn(query, points, min(3, points.shape[1])))
