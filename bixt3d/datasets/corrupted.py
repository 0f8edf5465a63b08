"""Batches of corrupted clouds, the same whatever the batch size, the device and the order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bixt3d.datasets.corruption_base import Corruption, repeat_to
from bixt3d.datasets.corruptions import corrupt_each
from bixt3d.datasets.loader import Batch, CloudLoader


class CorruptedLoader:
    """Corrupt the batches of a loader that measures classification.

    Args:
        loader: of clean clouds, without augmentation.
        corruption: what to do to them.
        seed: of the draw, 0 or more.
        least: points that the model needs; a cloud left with fewer repeats its points in order up to
            that number.

    Attributes:
        points_left: points of each corrupted cloud, once a batch was made.

    Raises:
        ValueError: the loader augments, or the seed is negative.
    """

    def __init__(self, loader: CloudLoader, corruption: Corruption, *, seed: int = 0, least: int = 1) -> None:
        if loader.transform is not None:
            raise ValueError("loader: expected one that does not augment.")
        if seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {seed}.")
        self.loader, self.corruption, self.seed, self.least = loader, corruption, seed, least
        self.clouds, self.num_points = loader.clouds, loader.num_points
        self.points_left = loader.num_points

    def __len__(self) -> int:
        """Return the number of batches on this rank."""
        return len(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches, from batch number ``start`` on; all epochs are the same."""
        rows = self.loader.order(0).split(self.loader.batch_size)[start:]
        for index, batch in zip(rows, self.loader.epoch(0, start), strict=True):
            # the loader's own index lies on the CPU: reading the batch's would wait for the device
            points = corrupt_each(self.corruption, batch.points, index.tolist(), self.seed)
            self.points_left = points.shape[1]
            points, _ = repeat_to(self.least, points, None)
            yield replace(batch, points=points, part_labels=None)
