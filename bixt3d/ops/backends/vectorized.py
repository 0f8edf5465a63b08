"""Backend ``torch``: whole batches in a few tensor operations, on any device that torch supports."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..precision import squared_radius, widen

# Distances are held for one block of queries at a time. On a CPU, a block that fits in the cache is twice as fast as
# one that does not (32 clouds of 1024 points, 512 queries: 156 ms against 315 ms). On other devices, large blocks keep
# the device busy. 2^24 elements are 64 MiB of distances.
CPU_BLOCK_ELEMENTS = 2**17
BLOCK_ELEMENTS = 2**24


def _blocks(query: Tensor, points: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield pairs of slices (clouds, queries) that cover all queries, with a bounded number of distances each."""
    num_clouds, num_queries, _ = query.shape
    if num_clouds == 0 or num_queries == 0:
        return
    budget = CPU_BLOCK_ELEMENTS if query.device.type == "cpu" else BLOCK_ELEMENTS
    rows = max(1, budget // points.shape[1])
    clouds_at_once = max(1, min(num_clouds, rows // num_queries))
    queries_at_once = min(num_queries, rows)
    for b in range(0, num_clouds, clouds_at_once):
        for m in range(0, num_queries, queries_at_once):
            yield slice(b, b + clouds_at_once), slice(m, m + queries_at_once)


def _sq_distances(query: Tensor, points: Tensor) -> Tensor:
    """Return (B, M, N) squared distances between (B, M, D) and (B, N, D).

    Products and sums are separate operations on purpose: a fused multiply-add rounds differently and could change which
    of two equally near points counts as the nearer.
    """
    total = (query[:, :, 0, None] - points[:, None, :, 0]).square_()
    for axis in range(1, query.shape[2]):
        total.add_((query[:, :, axis, None] - points[:, None, :, axis]).square_())
    return total


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Keep each point's distance to its nearest pick, and pick the point where it is largest."""
    num_clouds, num_points, _ = points.shape
    index = torch.empty(num_clouds, num_samples, dtype=torch.int64, device=points.device)
    if num_clouds == 0:
        return index
    axes = widen(points).permute(2, 0, 1).contiguous()
    scratch = torch.empty_like(axes)
    nearest = axes.new_full((num_clouds, num_points), math.inf)
    picked = start[:, None]
    for s in range(num_samples):
        index[:, s] = picked[:, 0]
        torch.sub(axes, axes.gather(2, picked.expand(axes.shape[0], -1, -1)), out=scratch).square_()
        to_picked = scratch[0]
        for axis in range(1, axes.shape[0]):
            to_picked.add_(scratch[axis])
        torch.minimum(nearest, to_picked, out=nearest)
        # Among equal values, max returns the lowest index. It is twice as fast as argmax here.
        picked = nearest.max(dim=1, keepdim=True).indices
    return index


def _smallest(sq_dist: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` smallest values of each row in ascending order, and their indices. Ties are ordered by index.

    topk leaves the order of equal values open, so value and index are combined in a 64-bit key. The bits of a
    non-negative float32 sort like an integer, and with the index in the lower half no two keys are equal.
    """
    if sq_dist.dtype == torch.float64:
        values, index = sq_dist.sort(dim=-1, stable=True)
        return values[..., :k], index[..., :k]
    key = sq_dist.view(torch.int32).to(torch.int64)
    key.bitwise_left_shift_(32).bitwise_or_(torch.arange(sq_dist.shape[-1], device=sq_dist.device))
    smallest = key.topk(k, dim=-1, largest=False, sorted=True).values
    return (smallest >> 32).to(torch.int32).view(torch.float32), smallest & 0xFFFFFFFF


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the nearest from one block of distances at a time."""
    query, points = widen(query), widen(points)
    sq_dist = query.new_empty(query.shape[0], query.shape[1], k)
    index = torch.empty(sq_dist.shape, dtype=torch.int64, device=query.device)
    points = points.mT.contiguous().mT  # each axis contiguous, since distances are computed axis by axis
    for clouds, queries in _blocks(query, points):
        block = _sq_distances(query[clouds, queries], points[clouds])
        sq_dist[clouds, queries], index[clouds, queries] = _smallest(block, k)
    return sq_dist, index


def ball_query(query: Tensor, points: Tensor, radius: float, max_neighbors: int) -> Tensor:
    """Number the hits of each row in order and look up the first ``max_neighbors`` numbers."""
    query, points = widen(query), widen(points)
    num_points = points.shape[1]
    limit = squared_radius(radius, query.dtype)
    index = torch.empty(query.shape[0], query.shape[1], max_neighbors, dtype=torch.int64, device=query.device)
    points = points.mT.contiguous().mT
    numbers = torch.arange(1, max_neighbors + 1, dtype=torch.int32, device=query.device)
    for clouds, queries in _blocks(query, points):
        block = _sq_distances(query[clouds, queries], points[clouds])
        hits_so_far = (block <= limit).cumsum(dim=-1, dtype=torch.int32)
        # The j-th hit is where the count first reaches j, or N if there is none.
        found = torch.searchsorted(hits_so_far, numbers.expand(*block.shape[:2], -1).contiguous())
        first = found[..., :1]
        first = torch.where(first == num_points, block.argmin(dim=-1, keepdim=True), first)
        index[clouds, queries] = torch.where(found == num_points, first, found)
    return index


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Find the three nearest, and repeat the last one if the cloud has fewer points."""
    return three_of(*knn(query, points, min(3, points.shape[1])))


def three_of(sq_dist: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat the last one of up to three neighbours (B, M, K) until there are three."""
    found = index.shape[2]
    if found == 3:
        return sq_dist, index
    columns = torch.arange(3, device=index.device).clamp(max=found - 1)
    return sq_dist[:, :, columns], index[:, :, columns]


def gather_points(features: Tensor, index: Tensor) -> Tensor:
    """Gather rows. Flat indexing is faster, but only ``torch.gather`` rejects indices that leave their cloud."""
    return features.gather(1, index[:, :, None].expand(-1, -1, features.shape[2]))


def group_points(features: Tensor, index: Tensor) -> Tensor:
    """Gather the rows of all neighbours and split them into groups."""
    return gather_points(features, index.flatten(1)).reshape(*index.shape, features.shape[2])


def three_interpolate(features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Sum the three gathered rows with their weights."""
    return (group_points(features, index) * weights[..., None]).sum(dim=2).to(features.dtype)
