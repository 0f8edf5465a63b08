"""Backend ``reference``: one point after the other, so that each line can be checked against the contract.

These functions define the correct result and are slow. They accept tensors on any device, but loop in Python.
"""

import math

import torch
from torch import Tensor

from ..precision import squared_radius, widen


def _sq_distances(point: Tensor, points: Tensor) -> list[float]:
    """Return the squared distance of one point (D,) to each of ``points`` (N, D), summed axis by axis."""
    total = torch.zeros_like(points[:, 0])
    for axis in range(points.shape[1]):
        difference = point[axis] - points[:, axis]
        total = total + difference * difference
    return total.tolist()


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Pick points one by one, each the farthest from those picked before it."""
    points = widen(points)
    index = torch.empty(points.shape[0], num_samples, dtype=torch.int64, device=points.device)
    for b, cloud in enumerate(points):
        picked = int(start[b])
        nearest = [math.inf] * len(cloud)
        for s in range(num_samples):
            index[b, s] = picked
            to_picked = _sq_distances(cloud[picked], cloud)
            nearest = [min(pair) for pair in zip(nearest, to_picked, strict=True)]
            picked = nearest.index(max(nearest))  # index() returns the lowest among equally far ones
    return index


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sort all points of the cloud by distance, then by index, and keep the first ``k``."""
    query, points = widen(query), widen(points)
    sq_dist = query.new_empty(query.shape[0], query.shape[1], k)
    index = torch.empty(sq_dist.shape, dtype=torch.int64, device=query.device)
    for b, cloud in enumerate(points):
        for m, center in enumerate(query[b]):
            distances = _sq_distances(center, cloud)
            nearest_first = sorted((distance, i) for i, distance in enumerate(distances))
            for j, (distance, i) in enumerate(nearest_first[:k]):
                sq_dist[b, m, j] = distance
                index[b, m, j] = i
    return sq_dist, index


def ball_query(query: Tensor, points: Tensor, radius: float, max_neighbors: int) -> Tensor:
    """Scan the cloud in order and keep the first points inside the ball."""
    query, points = widen(query), widen(points)
    limit = squared_radius(radius, query.dtype)
    index = torch.empty(query.shape[0], query.shape[1], max_neighbors, dtype=torch.int64, device=query.device)
    for b, cloud in enumerate(points):
        for m, center in enumerate(query[b]):
            distances = _sq_distances(center, cloud)
            found = [i for i, distance in enumerate(distances) if distance <= limit]
            if not found:
                found = [distances.index(min(distances))]
            for j in range(max_neighbors):
                index[b, m, j] = found[j] if j < len(found) else found[0]
    return index


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Find the three nearest, and repeat the last one if the cloud has fewer points."""
    sq_dist, index = knn(query, points, min(3, points.shape[1]))
    while index.shape[2] < 3:
        sq_dist = torch.cat([sq_dist, sq_dist[:, :, -1:]], dim=2)
        index = torch.cat([index, index[:, :, -1:]], dim=2)
    return sq_dist, index


def gather_points(features: Tensor, index: Tensor) -> Tensor:
    """Copy one row after the other."""
    out = features.new_zeros(index.shape[0], index.shape[1], features.shape[2])
    for b in range(index.shape[0]):
        for m in range(index.shape[1]):
            out[b, m] = features[b, index[b, m]]
    return out


def group_points(features: Tensor, index: Tensor) -> Tensor:
    """Copy one neighbour's row after the other."""
    out = features.new_zeros(*index.shape, features.shape[2])
    for b in range(index.shape[0]):
        for m in range(index.shape[1]):
            for j in range(index.shape[2]):
                out[b, m, j] = features[b, index[b, m, j]]
    return out


def three_interpolate(features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Sum three weighted rows for every query."""
    dtype = torch.promote_types(features.dtype, weights.dtype)
    out = torch.zeros(*index.shape[:2], features.shape[2], dtype=dtype, device=features.device)
    for b in range(index.shape[0]):
        for m in range(index.shape[1]):
            for j in range(3):
                out[b, m] = out[b, m] + weights[b, m, j].to(dtype) * features[b, index[b, m, j]].to(dtype)
    return out.to(features.dtype)
