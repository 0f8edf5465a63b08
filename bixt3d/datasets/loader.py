"""Load batches of clouds without worker processes, with the data on the device of the model if it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bixt3d.datasets.clouds import PointClouds
from bixt3d.datasets.transform_base import call, check_callable, mix_of, permutations, take

SAMPLINGS = ("first", "random")


@dataclass(frozen=True)
class Batch:
    """A batch of clouds, on the loader's device.

    Args:
        points: ``(B, n, C)`` float32.
        labels: ``(B,)`` int64.
        part_labels: ``(B, n)`` int64, or None.
        index: ``(B,)`` int64, index of each cloud in the data set.
        targets: ``(B, classes)`` float32, soft labels of mixed clouds. None if the clouds were not mixed; ``labels``
            are then the targets.
    """

    points: Tensor
    labels: Tensor
    part_labels: Tensor | None
    index: Tensor
    targets: Tensor | None = None


class CloudLoader:
    """Iterate over clouds in batches, reproducibly.

    The order of the clouds, the points drawn and the augmentation of a batch depend only on (seed, epoch, batch
    number, rank). A run that is resumed at any batch therefore sees the same data as an uninterrupted one.

    If the arrays fit into the budget, they are moved to ``device`` once. Otherwise they stay in host memory, and each
    batch is moved separately. The batches are the same. Memory-mapped arrays in host memory stay mapped, except that
    a split from which clouds were held out is a copy in memory (:meth:`PointClouds.select`).

    With several ranks, ``drop_last=True`` gives each rank the same number of full batches of one shared permutation
    (training). ``drop_last=False`` gives each cloud to exactly one rank (evaluation), so ranks may differ in the
    number of batches.

    Args:
        clouds: the point clouds to iterate over.
        batch_size: clouds per batch and rank.
        num_points: points per cloud.
        transform: augmentation of a batch, applied after its points are drawn: a
            :class:`~bixt3d.datasets.transforms.Transform`, which may also mix the clouds of the batch, or any
            callable with the same arguments. None for no augmentation.
        shuffle: draw a new order each epoch. Otherwise the order is that of the data set.
        drop_last: drop clouds that do not fill a batch on every rank.
        sampling: which of the stored points to use: ``"first"`` for the first ones, ``"random"`` for a new random
            subset each time.
        seed: seed of all random draws.
        device: device of the batches.
        rank: index of this process.
        world_size: number of processes.
        device_budget: bytes that the arrays may occupy on the device. None allows a quarter of the free memory of a
            CUDA device. On the CPU the arrays are always kept.

    Raises:
        TypeError: ``clouds`` is not a :class:`PointClouds`, or the transform cannot be called like one.
        ValueError: a number is out of range, the clouds have fewer than ``num_points`` points, ``sampling`` is
            unknown, or with ``drop_last`` there are too few clouds for one batch per rank.
    """

    def __init__(
        self,
        clouds: PointClouds,
        *,
        batch_size: int,
        num_points: int,
        transform: Callable | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        sampling: str = "first",
        seed: int = 0,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        device_budget: int | None = None,
    ) -> None:
        if not isinstance(clouds, PointClouds):
            raise TypeError(
                f"data: expected bixt3d.datasets.PointClouds from load(split), got {type(clouds).__name__}."
            )
        if transform is not None:
            check_callable("augment", transform)
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}.")
        if not 1 <= num_points <= clouds.points.shape[1]:
            raise ValueError(
                f"num_points: expected 1 to {clouds.points.shape[1]}, the points stored per cloud, "
                f"got {num_points}."
            )
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling: unknown value {sampling!r}, expected one of {', '.join(SAMPLINGS)}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: expected 0 to world_size - 1 ({world_size - 1}), got {rank}.")
        if drop_last and len(clouds) < batch_size * world_size:
            each = f" for each of {world_size} processes" if world_size > 1 else ""
            raise ValueError(
                f"train.batch_size: {len(clouds)} clouds do not fill one batch of {batch_size}{each}; lower it, or "
                "train on more clouds."
            )
        self.clouds = clouds
        self.batch_size = batch_size
        self.num_points = num_points
        self.transform = transform
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.sampling = sampling
        self.seed = seed
        self.device = torch.device(device)
        self.rank = rank
        self.world_size = world_size
        place = self._place(device_budget)
        self._points = _hold(clouds.points, place)
        self._part_labels = None if clouds.part_labels is None else _hold(clouds.part_labels, place)
        self._labels = torch.tensor(clouds.labels, device=self.device)

    def __len__(self) -> int:
        """Return the number of batches per epoch on this rank."""
        if self.drop_last:
            return len(self.clouds) // (self.batch_size * self.world_size)
        return -(-len(range(self.rank, len(self.clouds), self.world_size)) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch, starting at batch ``start``.

        Args:
            epoch: 0 or more. Without ``shuffle`` it still seeds the draw of points and the augmentation.
            start: number of batches to skip, 0 to ``len(self)``.

        Raises:
            ValueError: a number is out of range.
        """
        if epoch < 0:
            raise ValueError(f"epoch: expected 0 or more, got {epoch}.")
        if not 0 <= start <= len(self):
            raise ValueError(f"start: expected 0 to {len(self)}, the batches of an epoch, got {start}.")
        return self._batches(epoch, start)

    def order(self, epoch: int) -> Tensor:
        """Return the indices of the clouds that this rank sees in an epoch, in order, ``(n,)`` int64 on the CPU."""
        count = len(self.clouds)
        order = torch.arange(count)
        if self.shuffle:  # not seeded by the rank: the ranks share one permutation and take turns
            order = torch.randperm(count, generator=_generator("cpu", self.seed, epoch))
        if self.drop_last:
            order = order[: len(self) * self.batch_size * self.world_size]
        return order[self.rank :: self.world_size]

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.order(epoch)
        if isinstance(self._points, Tensor):  # once: a copy per batch would synchronise with the device
            order = order.to(self._points.device)
        for number in range(start, len(self)):
            index = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield self._batch(index, epoch, number)

    def _batch(self, index: Tensor, epoch: int, number: int) -> Batch:
        generator = _generator(self.device, self.seed, epoch, number, self.rank)
        limit = self.num_points if self.sampling == "first" else self.clouds.points.shape[1]
        points = self._gather(self._points, index, limit)
        part_labels = None if self._part_labels is None else self._gather(self._part_labels, index, limit)
        if self.sampling == "random":
            drawn = permutations(points, limit, generator)[:, : self.num_points]
            points, part_labels = take(points, part_labels, drawn)
        index = index.to(self.device)
        labels, targets = self._labels[index], None
        if self.transform is not None:
            points, part_labels = call(self.transform, points, part_labels, generator)
            points, part_labels, targets = mix_of(self.transform)(
                points, part_labels, labels, len(self.clouds.classes), generator
            )
        return Batch(points, labels, part_labels, index, targets)

    def _gather(self, source: Tensor | np.ndarray, index: Tensor, limit: int) -> Tensor:
        if isinstance(source, np.ndarray):  # memory-mapped: fancy indexing reads and copies only these clouds
            picked = torch.from_numpy(np.asarray(source[index.numpy(), :limit]))
        else:
            picked = source[:, :limit][index.to(source.device)]
        return picked.to(self.device)

    def _place(self, device_budget: int | None) -> torch.device:
        """Return the device on which to keep the arrays: the loader's if they fit its budget, else the CPU."""
        part_labels = self.clouds.part_labels
        size = self.clouds.points.nbytes + (0 if part_labels is None else part_labels.nbytes)
        if device_budget is None:
            is_cuda = self.device.type == "cuda"
            device_budget = torch.cuda.mem_get_info(self.device)[0] // 4 if is_cuda else 0
        return self.device if size <= device_budget else torch.device("cpu")


def _hold(array: np.ndarray, device: torch.device) -> Tensor | np.ndarray:
    if device.type != "cpu":
        return torch.tensor(array, device=device)
    if isinstance(array, np.memmap):
        return array
    # shares memory with the caller's array if it is writeable, as torch requires; nothing here writes to it
    return torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)


def _generator(device: str | torch.device, *key: int) -> torch.Generator:
    # the length is part of the key, since SeedSequence treats (1, 2) and (1, 2, 0) as equal
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) >> 1)  # below 2**63
