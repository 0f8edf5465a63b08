"""Base class and helpers of the point cloud corruptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bixt3d.datasets.clouds import FILLER
from bixt3d.datasets.transform_base import Drawn, Transform, take

SEVERITIES = (1, 2, 3, 4, 5)
Draws = tuple[Tensor, ...]


@dataclass(frozen=True)
class Source:
    """Source of the random numbers of a corruption: float32 tensors of any shape."""

    generator: torch.Generator | None
    device: torch.device

    def uniform(self, *shape: int) -> Tensor:
        """Draw from the uniform distribution on [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device, dtype=torch.float32)

    def normal(self, *shape: int) -> Tensor:
        """Draw from the standard normal distribution."""
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=torch.float32)


@dataclass(frozen=True)
class Corruption(Transform):
    """Base class of corruptions.

    Args:
        severity: 1 (mild) to 5, an index into ``levels``, counted from 1.

    Attributes:
        levels: the parameter of the corruption at each severity.

    Raises:
        ValueError: the severity is not from 1 to 5.
    """

    severity: int = 3

    levels: ClassVar[tuple[float, ...]] = ()

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity: expected a whole number from 1 to 5, got {self.severity!r}.")

    @property
    def level(self) -> float:
        """Parameter of the corruption at this severity."""
        return self.levels[self.severity - 1]

    def _draw(self, clouds: int, count: int, source: Source) -> Draws:
        """Draw the random numbers for ``clouds`` clouds of ``count`` points, each tensor of shape ``(clouds, ...)``."""
        raise NotImplementedError(f"{type(self).__name__} does not implement _draw.")

    def _corrupt(self, points: Tensor, part_labels: Tensor | None, *noise: Tensor) -> Drawn:
        """Corrupt a batch ``(B, N, C)`` with the random numbers drawn for it."""
        raise NotImplementedError(f"{type(self).__name__} does not implement _corrupt.")

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        noise = self._draw(len(points), points.shape[1], Source(generator, points.device))
        return self._corrupt(points, part_labels, *(n.to(points.dtype) for n in noise))


def keep_least(points: Tensor, part_labels: Tensor | None, key: Tensor, share: float) -> Drawn:
    """Drop the given share of points, those with the largest keys ``(B, N)``; the others keep their order."""
    kept = key.argsort(dim=1, stable=True)[:, : remaining(points.shape[1], share)]
    return take(points, part_labels, kept.sort(dim=1).values)


def repeat_to(least: int, points: Tensor, part_labels: Tensor | None) -> Drawn:
    """Repeat the points of clouds ``(B, N, C)`` in order up to ``least`` points if there are fewer."""
    count = points.shape[1]
    if count >= least:
        return points, part_labels
    index = torch.arange(least, device=points.device) % count
    return points[:, index], None if part_labels is None else part_labels[:, index]


def remaining(count: int, share: float) -> int:
    """Return how many of ``count`` points remain after a share of them is dropped, at least one."""
    return max(1, count - round(share * count))


def append(points: Tensor, part_labels: Tensor | None, xyz: Tensor, normal: Tensor) -> Drawn:
    """Append points, with random normals if the cloud has normals, and with part label :data:`FILLER`."""
    added = torch.cat([xyz, unit_vectors(normal)], dim=-1)[..., : points.shape[-1]]
    if part_labels is not None:
        filler = part_labels.new_full((len(points), added.shape[1]), FILLER)
        part_labels = torch.cat([part_labels, filler], dim=1)
    return torch.cat([points, added], dim=1), part_labels


def unit_vectors(vectors: Tensor) -> Tensor:
    """Scale vectors ``(..., 3)`` to unit length."""
    return torch.nn.functional.normalize(vectors, dim=-1)
