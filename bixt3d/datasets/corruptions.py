"""Corrupt point clouds at five severities, to measure the robustness of a classifier or to train with.

Each corruption is an ordinary transform. The number of points that it returns depends on the corruption, the severity
and the number of input points, never on the cloud, so batches need no padding. The random numbers are drawn
separately from applying the corruption, so each cloud can have its own generator (:func:`corrupt_each`). Logarithms,
sines and cosines are computed when drawing, because their rounding may depend on the size of the batch.

The corruptions follow those of ModelNet40-C (Sun et al., "Benchmarking Robustness of 3D Point Cloud Recognition
against Common Corruptions", 2022) and ModelNet-C (Ren et al., "Benchmarking and Analyzing Point Cloud Classification
under Corruptions", ICML 2022). The severities are bixt3d's own, so results are not comparable with theirs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bixt3d.datasets.corruption_base import (
    Corruption,
    Draws,
    Source,
    append,
    keep_least,
    remaining,
    unit_vectors,
)
from bixt3d.datasets.rotation import rotation_matrices
from bixt3d.datasets.transform_base import Drawn, pick
from bixt3d.datasets.transforms import move, stretch


class Noise(Corruption):
    """Add unclipped Gaussian noise to each point; the level is its standard deviation."""

    levels = (0.01, 0.02, 0.03, 0.04, 0.05)

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        return (source.normal(clouds, count, 3),)

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        return move(points, self.level * noise[0]), part_labels


class Rotation(Corruption):
    """Rotate each cloud about a random axis; the level is the largest angle, in degrees."""

    levels = (6, 12, 18, 24, 30)

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        axis = unit_vectors(source.normal(clouds, 3))
        half = math.radians(self.level) * (2 * source.uniform(clouds, 1) - 1) / 2
        return (torch.cat([half.cos(), half.sin() * axis], dim=1),)  # a unit quaternion

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        rows = rotation_matrices(noise[0])[:, None]  # (B, 1, 3, 3)
        # a sum of products, because the rounding of a matrix product may depend on the batch
        turned = [(rows * part[:, :, None]).sum(dim=-1) for part in points.split(3, dim=-1)]
        return torch.cat(turned, dim=-1), part_labels


class Scale(Corruption):
    """Scale each cloud along each axis by a factor drawn uniformly from [1 / level, level]."""

    levels = (1.6, 1.7, 1.8, 1.9, 2.0)

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        return (source.uniform(clouds, 1, 3),)

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        factor = 1 / self.level + (self.level - 1 / self.level) * noise[0]
        return stretch(points, factor), part_labels


class GlobalDrop(Corruption):
    """Drop random points; the level is the share dropped."""

    levels = (0.25, 0.375, 0.5, 0.625, 0.75)

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        return (source.uniform(clouds, count),)

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        return keep_least(points, part_labels, noise[0], self.level)


class LocalDrop(Corruption):
    """Drop the neighbourhoods of three random points in turn; the level is the total share dropped."""

    levels = (0.1, 0.2, 0.3, 0.4, 0.5)
    patches: ClassVar[int] = 3

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        return (source.uniform(clouds, self.patches),)

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        left, count = points.shape[1], points.shape[1]
        for i in range(self.patches):
            center = (noise[0][:, i : i + 1] * left).long().clamp(max=left - 1)
            picked = pick(points, center)[..., :3]
            nearness = -(points[..., :3] - picked).square().sum(dim=-1)
            after = remaining(count, self.level * (i + 1) / self.patches)
            points, part_labels = keep_least(points, part_labels, nearness, 1 - after / left)
            left = after
        return points, part_labels


class Clutter(Corruption):
    """Add points uniformly distributed in the unit ball; the level is their number relative to the cloud's points."""

    levels = (0.01, 0.02, 0.03, 0.04, 0.05)

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        added = max(1, round(self.level * count))
        shape = (clouds, added, 3)
        return source.normal(*shape), source.uniform(*shape), source.normal(*shape)

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        direction, unit, normal = noise
        # the maximum of three uniform numbers is below r with probability r^3, like the radius of a point in a ball
        return append(points, part_labels, unit_vectors(direction) * unit.amax(dim=-1, keepdim=True), normal)


class LocalClutter(Corruption):
    """Add Gaussian blobs around four random points; the level is the number of added relative to existing points."""

    levels = (0.1, 0.2, 0.3, 0.4, 0.5)
    blobs: ClassVar[int] = 4
    std: ClassVar[float] = 0.1

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        added = max(1, round(self.level * count))
        shape = (clouds, added, 3)
        return source.uniform(clouds, self.blobs), source.normal(*shape), source.normal(*shape)

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        unit, offset, normal = noise
        count = points.shape[1]
        centers = pick(points, (unit * count).long().clamp(max=count - 1))[..., :3]
        owner = torch.arange(offset.shape[1], device=points.device) % self.blobs
        return append(points, part_labels, centers[:, owner] + self.std * offset, normal)


class DensityGradient(Corruption):
    """Drop half of the points, increasingly many along a random direction.

    Points are kept with weights that decrease exponentially from one end of the cloud to the other. The level is the
    ratio of the weights at the two ends.
    """

    levels = (4, 16, 64, 256, 1024)
    share: ClassVar[float] = 0.5

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        unit = source.uniform(clouds, count).clamp(min=torch.finfo(torch.float32).tiny)
        return source.normal(clouds, 1, 3), (-unit.log()).log()

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        direction, waiting = noise
        along = (points[..., :3] * unit_vectors(direction)).sum(dim=-1)
        low, high = along.amin(dim=1, keepdim=True), along.amax(dim=1, keepdim=True)
        place = (along - low) / (high - low).clamp(min=torch.finfo(points.dtype).tiny)
        # logarithms of exponential waiting times whose rates are the weights: the points with the shortest ones are a
        # weighted sample without replacement
        return keep_least(points, part_labels, waiting + math.log(self.level) * place, self.share)


class Occlusion(Corruption):
    """Drop points that are hidden from a random viewpoint; the level is the share dropped.

    The view plane is divided into a grid of ``sqrt(N) / 2`` cells along each side of [-1, 1]. The depth of each point
    behind the nearest point of its cell is measured, and the points with the greatest depth are dropped. At high
    levels only the foremost surface is left.
    """

    levels = (0.15, 0.3, 0.45, 0.6, 0.75)

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        return (source.normal(clouds, 2, 3),)

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        view = unit_vectors(noise[0][:, :1])
        right = unit_vectors(torch.linalg.cross(view, noise[0][:, 1:]))
        up = torch.linalg.cross(view, right)
        depth, x, y = ((points[..., :3] * axis).sum(dim=-1) for axis in (view, right, up))
        cells = max(2, round(math.sqrt(points.shape[1]) / 2))
        column, row = (((v + 1) / 2 * cells).long().clamp(0, cells - 1) for v in (x, y))
        cell = column * cells + row
        nearest = depth.new_full((len(points), cells * cells), -math.inf)
        nearest = nearest.scatter_reduce(1, cell, depth, "amax")
        return keep_least(points, part_labels, nearest.gather(1, cell) - depth, self.level)


CORRUPTIONS: dict[str, type[Corruption]] = {
    "jitter": Noise,
    "rotation": Rotation,
    "scale": Scale,
    "local_drop": LocalDrop,
    "global_drop": GlobalDrop,
    "clutter": Clutter,
    "local_clutter": LocalClutter,
    "density": DensityGradient,
    "occlusion": Occlusion,
}


def corrupt_each(corruption: Corruption, points: Tensor, index: Sequence[int], seed: int) -> Tensor:
    """Corrupt clouds so that the result for each depends only on the seed, its index, the corruption and the severity.

    Args:
        corruption: the corruption to apply.
        points: ``(B, N, C)``, on any device. Random numbers are drawn on the CPU, so they are the same on all devices.
        index: index of each cloud in its data set.
        seed: 0 or more.

    Returns:
        ``(B, N', C)`` of the same dtype and device, where ``N'`` depends on the corruption.
    """
    kind = zlib.crc32(type(corruption).__name__.encode())  # Python's hash() differs between runs
    drawn = []
    for cloud in index:
        state = np.random.SeedSequence((seed, cloud, kind, corruption.severity)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]) >> 1)  # below 2**63
        drawn.append(corruption._draw(1, points.shape[1], Source(generator, generator.device)))
    noise = [torch.cat(one).to(points.device, points.dtype) for one in zip(*drawn, strict=True)]
    return corruption._corrupt(points, None, *noise)[0]
