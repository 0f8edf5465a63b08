"""Backend ``torch_cluster``: sampling and neighbours from that package, if installed. It runs only when named.

It is exact on CPU and CUDA but never the fastest, and serves as a comparison. The package leaves the order of equally
near points open, so neighbours are sorted here, and the backend "torch" repeats queries with a tie at their last
neighbour. Among equally far points, sampling picks the first on the CPU, and an unspecified one on CUDA. Its ``radius``
is not used: it returns an arbitrary subset of the hits, so the lowest indices would require asking for all N points.
"""

import importlib.util
import sys
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..precision import widen
from . import vectorized

PACKAGE = "torch_cluster"
MAX_CUDA_NEIGHBORS = 99  # the package's CUDA kernel finds up to 100, and one extra is needed to detect a tie


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why no op of the package can run on these inputs, or None."""
    for x in checks.tensors_among(inputs, options):
        if x.device.type not in ("cpu", "cuda"):
            return f"needs tensors on the CPU or a CUDA device, got {x.device.type}"
    if PACKAGE not in sys.modules and importlib.util.find_spec(PACKAGE) is None:
        return (
            "needs the package torch-cluster, which is not installed "
            "(pip install torch-cluster --no-build-isolation)"
        )
    return None


def knn_why_not(
    query: Tensor | None = None, points: Tensor | None = None, k: int | None = None, **options: object
) -> str | None:
    """Return why nearest neighbours cannot run, or None."""
    if points is not None and k is not None and points.device.type == "cuda" and k > MAX_CUDA_NEIGHBORS:
        return f"finds at most {MAX_CUDA_NEIGHBORS} neighbours on a CUDA device"
    return why_not(points)


def _clouds_of_rows(batch: int, rows: int, device: torch.device) -> Tensor:
    """Return the index of the cloud that each of the concatenated rows belongs to."""
    return torch.arange(batch, device=device).repeat_interleave(rows)


def start_first(num_points: int, start: Tensor) -> Tensor:
    """Return (B, N) indices that move point ``start`` to the front and keep the others in order.

    The packages start at index 0. Since the others stay in order, the lowest index still wins among equals.
    """
    place = torch.arange(num_points, device=start.device)
    return torch.where(place == 0, start[:, None], place - (place <= start[:, None]).long())


def in_given_order(order: Tensor, picked: Tensor) -> Tensor:
    """Map picks from clouds reordered by ``order`` back to indices into the original clouds.

    The start is picked again only when no position is left and all points are at distance zero. The lowest index is
    then 0.
    """
    index = order.gather(1, picked)
    index[:, 1:].masked_fill_(picked[:, 1:] == 0, 0)
    return index


def sq_distances_to(query: Tensor, points: Tensor, index: Tensor) -> Tensor:
    """Return (B, M, K): squared distances to the indexed points, with the rounding that all backends share."""
    squares = (query[:, :, None] - vectorized.group_points(points, index)).square()
    return sum(squares.unbind(dim=-1)[1:], start=squares[..., 0])


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Sample the concatenated clouds, each with its start moved to the front."""
    import torch_cluster

    batch, num_points, _ = points.shape
    if batch == 0:
        return torch.empty(0, num_samples, dtype=torch.int64, device=points.device)
    points = widen(points)
    order = start_first(num_points, start)
    turned = vectorized.gather_points(points, order).reshape(-1, 3)
    # The package samples ceil(N * ratio) points. Subtracting a half keeps rounding from adding one.
    ratio = (num_samples - 0.5) / num_points
    clouds = _clouds_of_rows(batch, num_points, points.device)
    picked = torch_cluster.fps(turned, clouds, ratio, random_start=False)
    return in_given_order(order, picked.view(batch, num_samples) % num_points)


def knn(query: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Take the package's neighbours, recompute their distances and sort equally near ones by index."""
    import torch_cluster

    batch, num_queries, num_axes = query.shape
    num_points = points.shape[1]
    query, points = widen(query), widen(points)
    if batch * num_queries == 0:
        shape = (batch, num_queries, k)
        return query.new_empty(shape), torch.empty(shape, dtype=torch.int64, device=query.device)
    asked = min(k + 1, num_points)
    edges = torch_cluster.knn(
        points.reshape(-1, num_axes),
        query.reshape(-1, num_axes),
        asked,
        _clouds_of_rows(batch, num_points, points.device),
        _clouds_of_rows(batch, num_queries, points.device),
    )
    index = edges[1].view(batch, num_queries, asked) % num_points
    index = index.sort(dim=-1).values
    sq_dist, order = sq_distances_to(query, points, index).sort(dim=-1, stable=True)
    index = index.gather(-1, order)
    if asked > k:
        tied = sq_dist[..., k - 1] == sq_dist[..., k]
        sq_dist, index = sq_dist[..., :k].contiguous(), index[..., :k].contiguous()
        for b in tied.any(dim=1).nonzero()[:, 0].tolist():
            again = vectorized.knn(query[b : b + 1, tied[b]], points[b : b + 1], k)
            sq_dist[b, tied[b]], index[b, tied[b]] = again[0][0], again[1][0]
    return sq_dist, index
