"""Backend ``pointnet2_ops``: the CUDA kernels of that package, if installed. It runs only when named.

The package is unmaintained and does not follow the contract of the ops: sampling ignores points around the origin, its
ball is open, its distances use fused multiply-adds, and it does not promise the lowest index among equally far points.
This module corrects all but the last. The corrections cost more than the kernels save, so ``backend=None`` never
chooses them. It covers farthest points, ball queries and three nearest neighbours. The ops on features are in
:mod:`.pointnet2_features`.
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
# The package ignores points with x² + y² + z² <= 1e-3 and initialises squared distances to 1e10. So clouds are scaled
# to coordinates below SCALED_EXTENT, with squared distances below 4e9, and kept outside of SQ_CLEARANCE, twice 1e-3.
SCALED_EXTENT = 2.0**14
SQ_CLEARANCE = 2e-3
# Its distances differ in rounding by a few units of 2⁻²⁴. A ball larger by this factor contains every hit of the op.
WIDER_RADIUS = 1 + 2.0**-18


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why no op of the package can run on these inputs, or None."""
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
    """Scale and shift (B, N, 3) float32 clouds so that the package ignores none of their points.

    Scaling by a power of two is exact. It is enough for every point that is further from the origin than a few
    millionths of the cloud's extent. A cloud with a nearer point is also shifted along x, which rounds its coordinates
    to 2⁻²² of the extent. Picks may then differ where two candidates are equally far to that precision. Does not
    synchronise with the device.
    """
    extent = points.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(points.dtype).tiny)
    # Keep the exponent in the range of float32. A cloud smaller than that is one point.
    exponent = torch.floor(torch.log2(SCALED_EXTENT / extent).clamp(-120, 120)).int()
    scaled = torch.ldexp(points, exponent)
    near = (scaled.square().sum(dim=2, keepdim=True) <= SQ_CLEARANCE).any(dim=1, keepdim=True)
    lowest = scaled[:, :, :1].amin(dim=1, keepdim=True)
    moved = torch.cat([scaled[:, :, :1] - lowest + 1, scaled[:, :, 1:]], dim=2)
    return torch.where(near, moved, scaled).contiguous()


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Sample clouds that are clear of the origin and have their start as the first point."""
    from pointnet2_ops import pointnet2_utils

    if len(points) == 0:
        return torch.empty(0, num_samples, dtype=torch.int64, device=points.device)
    points = clear_of_origin(widen(points))
    order = start_first(points.shape[1], start)
    turned = vectorized.gather_points(points, order)
    return in_given_order(order, pointnet2_utils.furthest_point_sample(turned, num_samples).long())


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Take the package's indices and recompute the squared distances, which it rounds by taking square roots."""
    from pointnet2_ops import pointnet2_utils

    query, points = widen(query).contiguous(), widen(points).contiguous()
    if query.shape[0] * query.shape[1] == 0:
        shape = (*query.shape[:2], 3)
        return query.new_empty(shape), torch.empty(shape, dtype=torch.int64, device=query.device)
    index = pointnet2_utils.three_nn(query, points)[1].long()
    # The package returns 0 where a cloud has no third point. Repeat the last one found instead.
    index = index[:, :, torch.arange(3, device=index.device).clamp(max=points.shape[1] - 1)]
    return sq_distances_to(query, points, index), index


def ball_query(query: Tensor, points: Tensor, radius: float, max_neighbors: int) -> Tensor:
    """Query a slightly larger open ball and keep the points in the closed one.

    The backend "torch" repeats the queries without a hit, and those where a point beyond the radius took the place of a
    hit. Synchronises with the device.
    """
    from pointnet2_ops import pointnet2_utils

    query, points = widen(query).contiguous(), widen(points).contiguous()
    if query.shape[0] * query.shape[1] == 0:
        shape = (*query.shape[:2], max_neighbors)
        return torch.empty(shape, dtype=torch.int64, device=query.device)
    limit = squared_radius(radius, query.dtype)
    index = pointnet2_utils.ball_query(radius * WIDER_RADIUS, max_neighbors, points, query).long()
    # Hits are in ascending order, and the first one fills up the rest.
    found = torch.ones_like(index, dtype=torch.bool)
    found[:, :, 1:] = index[:, :, 1:] > index[:, :, :-1]
    hit = found & (sq_distances_to(query, points, index) <= limit)
    again = ~hit.any(dim=-1) | (found.all(dim=-1) & ~hit.all(dim=-1))
    # Move the hits to the front, in order, and fill up with the first.
    index = index.masked_fill(~hit, points.shape[1]).sort(dim=-1).values
    index = torch.where(index == points.shape[1], index[:, :, :1], index)
    for b in again.any(dim=1).nonzero()[:, 0].tolist():
        rows = query[b : b + 1, again[b]]
        index[b, again[b]] = vectorized.ball_query(rows, points[b : b + 1], radius, max_neighbors)[0]
    return index
