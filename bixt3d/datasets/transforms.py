"""Augment point clouds, single or batched, on any device.

Each transform is called as ``t(points, part_labels=None, *, generator=None)``:

- ``points``: ``(N, C)`` or ``(B, N, C)`` floating point, C = 3 (xyz) or 6 (xyz and unit normal).
- ``part_labels``: ``(N,)`` or ``(B, N)`` integers. They stay aligned with the points.
- ``generator``: source of the random numbers, which are drawn separately for each cloud. It must be on the device of
  the points. None uses torch's global generator of that device.

It returns points, or ``(points, part_labels)`` if part labels were given, with the same dtype and device, and never
modifies its input. The result is differentiable in the points. Invalid input raises TypeError (dtype) or ValueError
(shape).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bixt3d.datasets.rotation import RandomRotation
from bixt3d.datasets.transform_base import (
    Drawn,
    Mixed,
    Transform,
    call,
    check_callable,
    check_range,
    mix_of,
    permutations,
    take,
)

__all__ = [
    "Compose",
    "Jitter",
    "PointDropout",
    "RandomRotation",
    "RandomScale",
    "RandomShift",
    "Resample",
    "Shuffle",
    "Transform",
    "UnitSphere",
]


@dataclass(frozen=True)
class Compose(Transform):
    """Apply transforms one after the other.

    Args:
        transforms: the transforms, in order of application. Any callable with the same arguments is accepted.
            PointMLP's recipe is RandomScale(), RandomShift(), Shuffle().

    Raises:
        TypeError: one of them cannot be called like a transform.
        ValueError: a transform that mixes clouds is not the last.
    """

    transforms: Sequence[Callable]

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", tuple(self.transforms))
        for transform in self.transforms:
            check_callable("transforms", transform)
        for transform in self.transforms[:-1]:
            if getattr(transform, "mixes", False):
                raise ValueError(
                    f"transforms: expected {type(transform).__name__} last, since it mixes finished clouds."
                )

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        """Whether the last transform mixes the clouds of a batch."""
        return bool(self.transforms) and getattr(self.transforms[-1], "mixes", False)

    def mix(
        self,
        points: Tensor,
        part_labels: Tensor | None,
        labels: Tensor,
        num_classes: int,
        generator: torch.Generator | None,
    ) -> Mixed:
        """Mix the clouds of a batch as the last transform does."""
        last = self.transforms[-1] if self.transforms else Transform()
        return mix_of(last)(points, part_labels, labels, num_classes, generator)

    def for_model(self, min_points: int) -> Compose:
        """Return the same transforms, each adapted to a model that needs at least ``min_points`` points."""
        fitted = (t.for_model(min_points) if isinstance(t, Transform) else t for t in self.transforms)
        return Compose(tuple(fitted))

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        for transform in self.transforms:
            if isinstance(transform, Transform):
                points, part_labels = transform._apply(points, part_labels, generator)
            else:
                points, part_labels = call(transform, points, part_labels, generator)
        return points, part_labels


@dataclass(frozen=True)
class UnitSphere(Transform):
    """Centre each cloud on its mean and scale its largest radius to 1: ``(p - mean) / max |p - mean|``."""

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        xyz = points[..., :3]
        xyz = xyz - xyz.mean(dim=1, keepdim=True)
        radius = xyz.norm(dim=-1).amax(dim=1)[:, None, None]
        xyz = xyz / torch.where(radius > 0, radius, torch.ones_like(radius))
        return torch.cat([xyz, points[..., 3:]], dim=-1), part_labels


@dataclass(frozen=True)
class RandomScale(Transform):
    """Multiply each cloud by a factor drawn uniformly from [low, high].

    Args:
        low: smallest factor, above 0.
        high: largest factor.
        anisotropic: draw one factor per axis; normals are then scaled by the inverse and renormalised. Otherwise one
            factor is used for all three axes.

    Raises:
        ValueError: not ``0 < low <= high``, or ``high`` is not finite.

    Source: Ma et al., "PointMLP", ICLR 2022, public training code.
    """

    low: float = 2 / 3
    high: float = 3 / 2
    anisotropic: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high or not math.isfinite(self.high):
            raise ValueError(f"low, high: expected 0 < low <= high, got {self.low} and {self.high}.")

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        unit = _uniform(points, (len(points), 1, 3 if self.anisotropic else 1), generator)
        factor = (self.low + (self.high - self.low) * unit).expand(-1, -1, 3)
        if points.shape[-1] == 6 and not self.anisotropic:
            return torch.cat([points[..., :3] * factor, points[..., 3:]], dim=-1), part_labels
        return stretch(points, factor), part_labels


def stretch(points: Tensor, factor: Tensor) -> Tensor:
    """Scale xyz by positive factors, and normals by their inverse, so that they stay perpendicular to the surface.

    Args:
        points: ``(B, N, 3)``, or ``(B, N, 6)`` with unit normals.
        factor: ``(B, 1, 3)``.
    """
    if points.shape[-1] == 3:
        return points * factor
    normals = torch.nn.functional.normalize(points[..., 3:] / factor, dim=-1)
    return torch.cat([points[..., :3] * factor, normals], dim=-1)


@dataclass(frozen=True)
class RandomShift(Transform):
    """Translate each cloud along each axis by a distance drawn uniformly from [-max_shift, max_shift].

    Args:
        max_shift: largest distance, in the unit of the points.

    Raises:
        ValueError: ``max_shift`` is negative.

    Source: Ma et al., "PointMLP", ICLR 2022, public training code.
    """

    max_shift: float = 0.2

    def __post_init__(self) -> None:
        check_range("max_shift", self.max_shift, 0, math.inf)

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        shift = self.max_shift * (2 * _uniform(points, (len(points), 1, 3), generator) - 1)
        return move(points, shift), part_labels


@dataclass(frozen=True)
class Jitter(Transform):
    """Add clipped Gaussian noise to each coordinate: ``p + clip(std * e, -clip, clip)``.

    Args:
        std: standard deviation, in the unit of the points.
        clip: largest shift along an axis, in the unit of the points.

    Raises:
        ValueError: a number is negative.

    Source: Qi et al., "PointNet", CVPR 2017, section 5.1.
    """

    std: float = 0.01
    clip: float = 0.05

    def __post_init__(self) -> None:
        check_range("std", self.std, 0, math.inf)
        check_range("clip", self.clip, 0, math.inf)

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        shape = (*points.shape[:2], 3)
        noise = torch.randn(shape, generator=generator, dtype=points.dtype, device=points.device)
        return move(points, (self.std * noise).clamp(-self.clip, self.clip)), part_labels


@dataclass(frozen=True)
class PointDropout(Transform):
    """Drop points at random, with a probability that is drawn for each cloud uniformly from [0, max_ratio].

    Dropped points are replaced by the first point that is kept, with its part label, so the shape does not change. If
    all points would be dropped, the first one is kept.

    Args:
        max_ratio: largest probability, in [0, 1].

    Raises:
        ValueError: ``max_ratio`` is outside [0, 1].

    Source: Qi et al., "PointNet++", NeurIPS 2017, section 3.3 (random input dropout).
    """

    max_ratio: float = 0.875

    def __post_init__(self) -> None:
        check_range("max_ratio", self.max_ratio, 0, 1)

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        ratio = self.max_ratio * _uniform(points, (len(points), 1), generator)
        kept = _uniform(points, points.shape[:2], generator) >= ratio
        first = kept.to(torch.int8).argmax(dim=1, keepdim=True)  # index 0 if none is kept
        index = torch.where(kept, torch.arange(points.shape[1], device=points.device), first)
        return take(points, part_labels, index)


@dataclass(frozen=True)
class Shuffle(Transform):
    """Shuffle the points of each cloud."""

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        return take(points, part_labels, permutations(points, points.shape[1], generator))


@dataclass(frozen=True)
class Resample(Transform):
    """Resample each cloud to ``num_points`` points.

    If a cloud has fewer points, they are repeated: none occurs twice before all have occurred once.

    Args:
        num_points: number of points to return, at least 1.
        random: draw points without replacement, in random order. Otherwise take the first ones.

    Raises:
        ValueError: ``num_points`` is below 1.
    """

    num_points: int
    random: bool = True

    def __post_init__(self) -> None:
        if self.num_points < 1:
            raise ValueError(f"num_points: expected at least 1, got {self.num_points}.")

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        count = points.shape[1]
        rounds = -(-self.num_points // count)
        if self.random:
            drawn = [permutations(points, count, generator) for _ in range(rounds)]
        else:
            drawn = [torch.arange(count, device=points.device).expand(len(points), -1)] * rounds
        return take(points, part_labels, torch.cat(drawn, dim=1)[:, : self.num_points])


def move(points: Tensor, shift: Tensor) -> Tensor:
    """Translate points ``(B, N, C)`` by ``(B, 1 or N, 3)``; normals do not change."""
    if points.shape[-1] == 3:
        return points + shift
    return torch.cat([points[..., :3] + shift, points[..., 3:]], dim=-1)


def _uniform(points: Tensor, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    return torch.rand(tuple(shape), generator=generator, dtype=points.dtype, device=points.device)
