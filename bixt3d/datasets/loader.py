"""Batches of clouds: held where the model is, drawn without worker processes."""

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
    """Some clouds, on the loader's device.

    Args:
        points: ``(B, n, C)`` float32.
        labels: ``(B,)`` int64.
        part_labels: ``(B, n)`` int64, or None.
        index: ``(B,)`` int64, which clouds of the data set these are.
        targets: ``(B, classes)`` float32, what each cloud is to be taken for, where clouds were mixed; None
            where ``labels`` says it.
    """

    points: Tensor
    labels: Tensor
    part_labels: Tensor | None
    index: Tensor
    targets: Tensor | None = None


class CloudLoader:
    """Iterate over clouds in batches, the same way every time.

    The order of an epoch, the points drawn and the augmentation of a batch are functions of (seed, epoch,
    batch number, rank) alone: a run that stops and resumes at any batch sees what it would have seen.

    The arrays are moved to ``device`` whole where they fit the budget; else they stay in host memory and each batch
    is moved by itself. The batches are the same. Memory-mapped arrays stay mapped there, but a split of which
    clouds were held out is a copy in memory (:meth:`PointClouds.select`).

    Over several ranks, ``drop_last=True`` gives each rank equally many full batches of one common
    permutation (train). ``drop_last=False`` gives every cloud to exactly one rank, none twice (evaluation):
    ranks may then differ in length.

    Args:
        clouds: what to iterate over.
        batch_size: clouds per batch and rank.
        num_points: points per cloud.
        transform: augmentation of a batch, after the draw of points, which may mix its clouds: a
            :class:`~bixt3d.datasets.transforms.Transform` or a callable with its arguments; None for none.
        shuffle: another order each epoch, else the data set's own.
        drop_last: leave out what does not fill a batch on every rank.
        sampling: which of the stored points, ``"first"``, or ``"random"``: another subset each time.
        seed: of everything random.
        device: where batches are made.
        rank: number of this process.
        world_size: number of processes.
        device_budget: bytes that the arrays may take on the device; None for a quarter of what is free on a
            CUDA device. On the CPU they are always held.

    Raises:
        TypeError: the clouds are no :class:`PointClouds`, or the transform cannot be called as one.
        ValueError: a number is out of range, the clouds hold fewer than ``num_points`` points, or with
            ``drop_last`` there are too few clouds for one batch on each rank.
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
        """Return the number of batches of an epoch on this rank."""
        if self.drop_last:
            return len(self.clouds) // (self.batch_size * self.world_size)
        return -(-len(range(self.rank, len(self.clouds), self.world_size)) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch, from batch number ``start`` on.

        Args:
            epoch: 0, 1, ...; without ``shuffle`` it still seeds the draw of points and the augmentation.
            start: batches to pass over, 0 to ``len(self)``.
        """
        if epoch < 0:
            raise ValueError(f"epoch: expected 0 or more, got {epoch}.")
        if not 0 <= start <= len(self):
            raise ValueError(f"start: expected 0 to {len(self)}, the batches of an epoch, got {start}.")
        return self._batches(epoch, start)

    def order(self, epoch: int) -> Tensor:
        """Return which clouds this rank sees in an epoch, in order: ``(n,)`` int64 on the CPU."""
        count = len(self.clouds)
        order = torch.arange(count)
        if self.shuffle:  # without the rank: all ranks share one permutation and take turns in it
            order = torch.randperm(count, generator=_generator("cpu", self.seed, epoch))
        if self.drop_last:
            order = order[: len(self) * self.batch_size * self.world_size]
        return order[self.rank :: self.world_size]

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.order(epoch)
        if isinstance(self._points, Tensor):  # moved once: a copy for each batch would wait for the device
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
        if isinstance(source, np.ndarray):  # mapped: fancy indexing reads these clouds and copies them
            picked = torch.from_numpy(np.asarray(source[index.numpy(), :limit]))
        else:
            picked = source[:, :limit][index.to(source.device)]
        return picked.to(self.device)

    def _place(self, device_budget: int | None) -> torch.device:
        """Return where the arrays are held: on the device if they fit, else in host memory."""
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
    # shared with the caller's array where torch allows it; nothing here writes to it
    return torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)


def _generator(device: str | torch.device, *key: int) -> torch.Generator:
    # the length is part of the key, since SeedSequence takes (1, 2) and (1, 2, 0) for the same
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) >> 1)  # below 2**63
