"""Mix the clouds of a batch, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bixt3d.datasets.transform_base import Drawn, Mixed, Transform, check_range, pick


@dataclass(frozen=True)
class SubsetMix(Transform):
    """Replace a patch of each cloud by a patch of the previous cloud in the batch, similar to RSMix.

    A random point of cloud A and its nearest neighbours, k points in all, are replaced by a random point of cloud B
    and its nearest neighbours, translated so that the two random points coincide. The target is ``(1 - k / N) A +
    (k / N) B``. RSMix replaces the points within a radius. Here it is a number of neighbours, so that a cloud keeps
    its N points and the weights of the target are exact. Part labels move with their points.

    Mixing happens only in a loader, as its last transform. Calling the transform on clouds changes nothing.

    Args:
        probability: probability that a cloud is mixed, in [0, 1].
        max_share: largest share of points that is replaced, in [0, 1]. The share is drawn uniformly from [0,
            max_share].

    Raises:
        ValueError: a number is out of range.

    Source: Lee et al., "Regularization Strategy for Point Cloud via Rigidly Mixed Sample", CVPR 2021.
    """

    probability: float = 0.5
    max_share: float = 0.5

    mixes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("probability", self.probability, 0, 1)
        check_range("max_share", self.max_share, 0, 1)

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        return points, part_labels

    def mix(
        self,
        points: Tensor,
        part_labels: Tensor | None,
        labels: Tensor,
        num_classes: int,
        generator: torch.Generator | None,
    ) -> Mixed:
        """Mix a batch without synchronising with the device; arguments as in :meth:`Transform.mix`."""
        count = points.shape[1]
        unit = torch.rand((len(points), 4), generator=generator, device=points.device, dtype=torch.float32)
        share = self.max_share * unit[:, 2] * (unit[:, 3] < self.probability)
        replaced = (share * count).long()  # (B,) points
        place = (unit[:, :2] * count).long().clamp(max=count - 1)

        other = points.roll(1, 0)
        here, there = pick(points, place[:, :1]), pick(other, place[:, 1:])
        order, other_order = _by_distance(points, here), _by_distance(other, there)
        brought = pick(other, other_order)
        moved = torch.cat([brought[..., :3] - there[..., :3] + here[..., :3], brought[..., 3:]], dim=-1)
        # both orders are nearest first: the first k points of one are replaced by the first k of the other
        first = torch.arange(count, device=points.device) < replaced[:, None]
        gives_way = torch.empty_like(first).scatter(1, order, first)
        moved = torch.empty_like(points).scatter(1, order[..., None].expand_as(points), moved)
        mixed = torch.where(gives_way[..., None], moved, points)
        if part_labels is not None:
            brought_parts = part_labels.roll(1, 0).gather(1, other_order)
            brought_parts = torch.empty_like(part_labels).scatter(1, order, brought_parts)
            part_labels = torch.where(gives_way, brought_parts, part_labels)

        taken = (replaced.float() / count)[:, None]
        target = torch.zeros(len(points), num_classes, device=points.device)
        target = target.scatter(1, labels[:, None], 1 - taken)
        return mixed, part_labels, target.scatter_add(1, labels.roll(1)[:, None], taken)


def _by_distance(points: Tensor, center: Tensor) -> Tensor:
    return (points[..., :3] - center[..., :3]).square().sum(dim=-1).argsort(dim=1, stable=True)
