"""Mix the clouds of a batch with each other, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bixt3d.datasets.transform_base import Drawn, Mixed, Transform, check_range, pick


@dataclass(frozen=True)
class SubsetMix(Transform):
    """Replace a piece of each cloud by a piece of the one before it in the batch, after the manner of RSMix.

    A random point of cloud A and its nearest neighbours, k in all, give way to a random point of cloud B and
    its nearest neighbours, moved as they are so that the two points coincide. The target is ``(1 - k / N) A +
    (k / N) B``. Where RSMix takes the points within a radius, a number of neighbours is taken here: a cloud
    keeps its N points, and the share in the target is exact. Part labels go with their points.

    Only a loader's batch is mixed, last of all transforms; on clouds without class labels nothing happens.

    Args:
        probability: that a cloud is mixed, in [0, 1].
        max_share: largest share that is replaced, in [0, 1]; drawn uniformly from 0 up.

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
        """Mix a batch; nothing waits for the device."""
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
        # the nearest first: the first k places of the one order take the first k of the other
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
