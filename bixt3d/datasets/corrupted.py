"""Load batches of corrupted clouds that do not depend on batch size, device or order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bixt3d.datasets.corruption_base import Corruption, repeat_to
from bixt3d.datasets.corruptions import corrupt_each
from bixt3d.datasets.loader import Batch, CloudLoader


class CorruptedLoader:
    """Corrupt the batches of a loader, to evaluate a classifier. Batches have no part labels.

    Args:
        loader: loader of clean clouds, without augmentation.
        corruption: the corruption to apply.
        seed: seed of the corruption, 0 or more.
        least: smallest number of points that the model accepts. A cloud with fewer points left repeats them in order
            up to that number.

    Attributes:
        points_left: number of points of each corrupted cloud, before any are repeated; set by the first batch.

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
        """Iterate over the batches, starting at batch ``start``; all epochs are the same."""
        rows = self.loader.order(0).split(self.loader.batch_size)[start:]
        for index, batch in zip(rows, self.loader.epoch(0, start), strict=True):
            # this index is on the CPU; reading that of the batch would synchronise with the device
            points = corrupt_each(self.corruption, batch.points, index.tolist(), self.seed)
            self.points_left = points.shape[1]
            points, _ = repeat_to(self.least, points, None)
            yield replace(batch, points=points, part_labels=None)
