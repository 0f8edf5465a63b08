"""Stray points: what a scanner saw in the air, told by its distance from everything else."""

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

    A point is a stray if the mean distance to its nearest neighbours is more than ``factor`` times the median of that
    over its cloud. Fewer than half of the points are ever strays. Where a scan is thin in places, these may be taken
    for strays. The defaults were chosen on the validation split of ModelNet40 (docs/robustness.md).

    Args:
        xyz: (B, N, 3) floating point, finite.
        num_neighbors: at least 1; where N is not larger, N - 1.
        factor: above 1.

    Returns:
        (B, N) bool.

    Raises:
        ValueError: wrong shape, or a number out of range.
        TypeError: wrong dtype.

    Source: Rusu et al., "Towards 3D point cloud based object maps for household environments", 2008, with the
    median in place of a mean and deviations, which strays themselves would raise.
    """
    if num_neighbors < 1 or not factor > 1:
        raise ValueError(
            f"num_neighbors, factor: expected at least 1 and above 1, got {num_neighbors} and {factor:g}."
        )
    if xyz.ndim == 3 and xyz.shape[1] < 2:
        return torch.zeros(xyz.shape[:2], dtype=torch.bool, device=xyz.device)
    # the nearest of all is the point itself, or one that lies where it does
    sq_dist, _ = knn(xyz, xyz, min(num_neighbors + 1, xyz.shape[1]))
    distance = sq_dist[..., 1:].sqrt().mean(dim=-1)
    usual = distance.median(dim=1, keepdim=True).values
    return (distance > factor * usual) & (usual > 0)  # 0 where points were repeated to fill a cloud up


def drop_strays(cloud: Cloud) -> tuple[Cloud, np.ndarray | None]:
    """Return what is left of a cloud, and for each of its points (N,) the nearest that is left; None if all are."""
    xyz = torch.from_numpy(unit_sphere(cloud.points))[None]
    kept = ~find_strays(xyz)[0]
    if kept.all():
        return cloud, None
    nearest = knn(xyz, xyz[:, kept], 1)[1][0, :, 0].numpy()
    return cloud.subset(kept.numpy()), nearest


class WithoutStrays(nn.Module):
    """Hand clouds to a classifier without their stray points.

    Clouds of a batch lose different numbers of points; each repeats points that are left, in order, up to the number
    that it had.

    Args:
        model: ``model(points (B, N, C)) -> logits (B, classes)``, with ``min_points``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.min_points = model.min_points

    def forward(self, points: Tensor) -> Tensor:
        """Take (B, N, C), xyz first; return what the model returns."""
        return self.model(replace_strays(points))


def replace_strays(points: Tensor) -> Tensor:
    """Replace stray points of clouds (B, N, C) by points that are none: those left, in order, again and again."""
    stray = find_strays(points[..., :3].contiguous())
    order = stray.to(torch.uint8).argsort(dim=1, stable=True)  # those that stay come first
    place = torch.arange(points.shape[1], device=points.device) % (~stray).sum(dim=1, keepdim=True)
    return gather_points(points, order.gather(1, place))
