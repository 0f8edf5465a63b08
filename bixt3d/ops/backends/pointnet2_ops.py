"""Backend ``pointnet2_ops``: the CUDA kernels of that package, where it is installed, on request by name.

The package is unmaintained and its answers are not ours: sampling is blind around the origin, its ball is open and
its distances fuse multiplication and addition, and it does not promise the lowest index of equally far points. What
differs is made up for here, except for the choice between equally far points; that costs more than its kernels
save, so nothing chooses them by itself. Here are farthest points, balls and three nearest neighbours; the ops on
features are in :mod:`.pointnet2_features`.
"""

import importlib.util
import sys
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..precision import squared_radius, widen
from . import vectorized
from .torch_cluster import in_given_order, sq_distances_to, start_first

PACKAGE = "pointnet2_ops"
# The package leaves out points with x² + y² + z² <= 1e-3 and starts from distances of 1e10. Clouds are scaled
# to coordinates below SCALED_EXTENT, squares of distances below 4e9, and kept beyond twice that square.
SCALED_EXTENT = 2.0**14
SQ_CLEARANCE = 2e-3
# Its distances round differently from ours, by a few units of 2⁻²⁴: a ball larger by this misses no hit of ours.
WIDER_RADIUS = 1 + 2.0**-18


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Say what every op of the package needs: itself, a CUDA device and no float64."""
    tensors = checks.tensors_among(inputs, options)
    for x in tensors:
        if x.device.type != "cuda":
            return f"needs tensors on a CUDA device, got {x.device.type}"
        if x.dtype == torch.float64:
            return "takes float16, bfloat16 and float32, not float64"
    if PACKAGE not in sys.modules and importlib.util.find_spec(PACKAGE) is None:
        return (
            "needs the package pointnet2_ops, which is not installed "
            "(build it from https://github.com/erikwijmans/Pointnet2_PyTorch)"
        )
    if not tensors and not torch.cuda.is_available():
        return "needs a CUDA device, and torch finds none"
    return None


def clear_of_origin(points: Tensor) -> Tensor:
    """Return (B, N, 3) float32 clouds whose points the package all accepts, congruent up to scale.

    Scaling by a power of two is exact and alone carries every point beyond the forbidden ball that is more
    than a few millionths of the cloud's extent away from the origin. A cloud with a point still nearer is
    moved along x as well, which rounds its coordinates to 2⁻²² of the extent: picks may then differ where two
    candidates are equally far to that precision. Nothing waits for the device.
    """
    extent = points.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(points.dtype).tiny)
    # Exponents within float32's own; a cloud smaller than that is one point.
    exponent = torch.floor(torch.log2(SCALED_EXTENT / extent).clamp(-120, 120)).int()
    scaled = torch.ldexp(points, exponent)
    near = (scaled.square().sum(dim=2, keepdim=True) <= SQ_CLEARANCE).any(dim=1, keepdim=True)
    lowest = scaled[:, :, :1].amin(dim=1, keepdim=True)
    moved = torch.cat([scaled[:, :, :1] - lowest + 1, scaled[:, :, 1:]], dim=2)
    return torch.where(near, moved, scaled).contiguous()


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Sample clouds that are clear of the origin and begin with their start."""
    from pointnet2_ops import pointnet2_utils

    if len(points) == 0:
        return torch.empty(0, num_samples, dtype=torch.int64, device=points.device)
    points = clear_of_origin(widen(points))
    order = start_first(points.shape[1], start)
    turned = vectorized.gather_points(points, order)
    return in_given_order(order, pointnet2_utils.furthest_point_sample(turned, num_samples).long())


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Take its indices and compute the squares anew, which its square roots have rounded."""
    from pointnet2_ops import pointnet2_utils

    query, points = widen(query).contiguous(), widen(points).contiguous()
    if query.shape[0] * query.shape[1] == 0:
        shape = (*query.shape[:2], 3)
        return query.new_empty(shape), torch.empty(shape, dtype=torch.int64, device=query.device)
    index = pointnet2_utils.three_nn(query, points)[1].long()
    # It answers 0 where a cloud has no third point; ours is the last that was found.
    index = index[:, :, torch.arange(3, device=index.device).clamp(max=points.shape[1] - 1)]
    return sq_distances_to(query, points, index), index


def ball_query(query: Tensor, points: Tensor, radius: float, max_neighbors: int) -> Tensor:
    """Query a slightly larger open ball and keep what lies in the closed one.

    The backend "torch" answers the queries without a hit, and those for which a point beyond the radius took the
    place of a hit. Waits for the device.
    """
    from pointnet2_ops import pointnet2_utils

    query, points = widen(query).contiguous(), widen(points).contiguous()
    if query.shape[0] * query.shape[1] == 0:
        shape = (*query.shape[:2], max_neighbors)
        return torch.empty(shape, dtype=torch.int64, device=query.device)
    limit = squared_radius(radius, query.dtype)
    index = pointnet2_utils.ball_query(radius * WIDER_RADIUS, max_neighbors, points, query).long()
    # It goes on with the first hit where there are no more, and its hits ascend.
    found = torch.ones_like(index, dtype=torch.bool)
    found[:, :, 1:] = index[:, :, 1:] > index[:, :, :-1]
    hit = found & (sq_distances_to(query, points, index) <= limit)
    again = ~hit.any(dim=-1) | (found.all(dim=-1) & ~hit.all(dim=-1))
    # The hits to the front, in order, and the first of them behind.
    index = index.masked_fill(~hit, points.shape[1]).sort(dim=-1).values
    index = torch.where(index == points.shape[1], index[:, :, :1], index)
    for b in again.any(dim=1).nonzero()[:, 0].tolist():
        rows = query[b : b + 1, again[b]]
        index[b, again[b]] = vectorized.ball_query(rows, points[b : b + 1], radius, max_neighbors)[0]
    return index
