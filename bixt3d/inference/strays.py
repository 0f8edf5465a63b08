"""Find and remove stray points, such as scanner noise far from any surface."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..io import Cloud, unit_sphere
from ..ops import gather_points, knn

NUM_NEIGHBORS = 4
FACTOR = 3.0


def find_strays(xyz: Tensor, *, num_neighbors: int = NUM_NEIGHBORS, factor: float = FACTOR) -> Tensor:
    """Find the points that lie far from all others.

    A point is a stray if the mean distance to its nearest neighbours exceeds ``factor`` times the median of this
    distance over the cloud. So fewer than half of the points are strays. Sparse regions of a scan may be taken for
    strays. The defaults were chosen on the validation split of ModelNet40 (docs/robustness.md).

    Args:
        xyz: (B, N, 3) floating point, finite.
        num_neighbors: number of neighbours, at least 1; limited to N - 1.
        factor: above 1.

    Returns:
        (B, N) bool, True for strays.

    Raises:
        ValueError: wrong shape, or a number is out of range.
        TypeError: wrong dtype.

    Source: Rusu et al., "Towards 3D point cloud based object maps for household environments", 2008, with the
    median instead of the mean and standard deviation, which strays themselves would increase.
    """
    if num_neighbors < 1 or not factor > 1:
        raise ValueError(
            f"num_neighbors, factor: expected at least 1 and above 1, got {num_neighbors} and {factor:g}."
        )
    if xyz.ndim == 3 and xyz.shape[1] < 2:
        return torch.zeros(xyz.shape[:2], dtype=torch.bool, device=xyz.device)
    # the nearest is the point itself, or one that coincides with it
    sq_dist, _ = knn(xyz, xyz, min(num_neighbors + 1, xyz.shape[1]))
    distance = sq_dist[..., 1:].sqrt().mean(dim=-1)
    usual = distance.median(dim=1, keepdim=True).values
    return (distance > factor * usual) & (usual > 0)  # 0 if points were repeated to pad a cloud


def drop_strays(cloud: Cloud) -> tuple[Cloud, np.ndarray | None]:
    """Remove stray points from a cloud.

    Returns:
        The remaining cloud, and the index (N,) of the nearest remaining point for each original point. If there are no
        strays, the cloud itself and None.
    """
    xyz = torch.from_numpy(unit_sphere(cloud.points))[None]
    kept = ~find_strays(xyz)[0]
    if kept.all():
        return cloud, None
    nearest = knn(xyz, xyz[:, kept], 1)[1][0, :, 0].numpy()
    return cloud.subset(kept.numpy()), nearest


class WithoutStrays(nn.Module):
    """Wrap a classifier so that it sees clouds without their stray points.

    The clouds of a batch lose different numbers of points, so each is padded to its original number by repeating the
    remaining points in order.

    Args:
        model: ``model(points (B, N, C)) -> logits (B, classes)``, with ``min_points``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.min_points = model.min_points

    def forward(self, points: Tensor) -> Tensor:
        """Call the model with points (B, N, C), xyz first, and return its result."""
        return self.model(replace_strays(points))


def replace_strays(points: Tensor) -> Tensor:
    """Remove stray points from clouds (B, N, C) and pad each to N points by repeating the others in order."""
    stray = find_strays(points[..., :3].contiguous())
    order = stray.to(torch.uint8).argsort(dim=1, stable=True)  # kept points first
    place = torch.arange(points.shape[1], device=points.device) % (~stray).sum(dim=1, keepdim=True)
    return gather_points(points, order.gather(1, place))
