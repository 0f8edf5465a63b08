"""Load batches in which every stored point of every cloud counts once, whatever the sizes of the clouds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from bixt3d.datasets.clouds import FILLER, PointClouds
from bixt3d.datasets.loader import Batch


class WholeCloudLoader:
    """Iterate over clouds cut into pieces of ``num_points`` points, the size that the model was trained on.

    A piece consists of consecutive stored points. Since these are in random order, it is as dense as a training
    cloud. The last piece of a cloud is padded with the cloud's first points, with part labels of -1. Nothing is
    random: all epochs are the same.

    Args:
        clouds: the point clouds, with part labels.
        batch_size: pieces per batch and rank.
        num_points: points per piece.
        device: device of the batches.
        rank: index of this process.
        world_size: number of processes. Each takes every ``world_size``-th piece.

    Raises:
        ValueError: the clouds have no part labels, or a number is out of range.
    """

    def __init__(
        self,
        clouds: PointClouds,
        *,
        batch_size: int,
        num_points: int,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if clouds.part_labels is None:
            raise ValueError(
                "clouds: expected part labels, got none; use CloudLoader, which evaluates the first points alone."
            )
        if batch_size < 1 or num_points < 1:
            raise ValueError(
                f"batch_size and num_points: expected at least 1, got {batch_size} and {num_points}."
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: expected 0 to world_size - 1 ({world_size - 1}), got {rank}.")
        self.clouds = clouds
        self.batch_size = batch_size
        self.num_points = num_points
        self.device = torch.device(device)
        pieces = [(i, start) for i, n in enumerate(clouds.sizes) for start in range(0, int(n), num_points)]
        self._pieces = np.array(pieces[rank::world_size], dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        """Return the number of batches on this rank."""
        return -(-len(self._pieces) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches, starting at batch ``start``; all epochs are the same."""
        for number in range(start, len(self)):
            pieces = self._pieces[number * self.batch_size : (number + 1) * self.batch_size]
            cloud, first = pieces[:, :1], pieces[:, 1:]
            size = self.clouds.sizes[cloud]
            place = first + np.arange(self.num_points)
            row = place % size
            assert self.clouds.part_labels is not None
            part_labels = np.where(place < size, self.clouds.part_labels[cloud, row], FILLER)
            yield Batch(
                points=torch.from_numpy(np.asarray(self.clouds.points[cloud, row])).to(self.device),
                labels=torch.from_numpy(self.clouds.labels[cloud[:, 0]]).to(self.device),
                part_labels=torch.from_numpy(part_labels).to(self.device),
                index=torch.from_numpy(cloud[:, 0].copy()).to(self.device),
            )
