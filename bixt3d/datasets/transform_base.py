"""What every transform of point clouds shares."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

Drawn = tuple[Tensor, "Tensor | None"]
Mixed = tuple[Tensor, "Tensor | None", "Tensor | None"]


class Transform:
    """What every transform shares: checks, and one path for a cloud and a batch of them.

    Attributes:
        mixes: whether :meth:`mix` does anything.
    """

    mixes: ClassVar[bool] = False

    def __call__(
        self, points: Tensor, part_labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return transformed points, and part labels where they were given."""
        _check(points, part_labels)
        single = points.ndim == 2
        batch = points[None] if single else points
        labels = part_labels[None] if single and part_labels is not None else part_labels
        batch, labels = self._apply(batch, labels, generator)
        if single:
            batch, labels = batch[0], None if labels is None else labels[0]
        return batch if labels is None else (batch, labels)

    def mix(
        self,
        points: Tensor,
        part_labels: Tensor | None,
        labels: Tensor,
        num_classes: int,
        generator: torch.Generator | None,
    ) -> Mixed:
        """Mix the clouds of a batch with each other, after the call; most transforms do not.

        Args:
            points: ``(B, N, C)``.
            part_labels: ``(B, N)`` integers, or None.
            labels: ``(B,)`` int64.
            num_classes: number of classes.
            generator: draws the random numbers.

        Returns:
            Points, part labels, and ``(B, num_classes)`` float32 targets, each row a distribution over the
            classes; None where the labels stay what they are.
        """
        return points, part_labels, None

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        raise NotImplementedError(f"{type(self).__name__} does not say what it does.")


def permutations(points: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw a random order of ``count`` points for each cloud: ``(B, count)`` int64."""
    if points.device.type == "cpu":  # eight times faster than sorting there
        return torch.stack([torch.randperm(count, generator=generator) for _ in range(len(points))])
    shape = (len(points), count)
    # float32 whatever the points are: half precision would tie, and ties would keep their order
    return torch.rand(shape, generator=generator, dtype=torch.float32, device=points.device).argsort(dim=1)


def take(points: Tensor, part_labels: Tensor | None, index: Tensor) -> Drawn:
    """Pick points per cloud: ``out[b, i] = points[b, index[b, i]]``, and part labels alike."""
    first = torch.arange(len(points), device=points.device)[:, None] * points.shape[1]
    rows = (first + index).flatten()
    picked = points.flatten(0, 1).index_select(0, rows).unflatten(0, tuple(index.shape))
    if part_labels is None:
        return picked, None
    return picked, part_labels.flatten().index_select(0, rows).view(index.shape)


def _check(points: Tensor, part_labels: Tensor | None) -> None:
    if not points.is_floating_point():
        raise TypeError(f"points: expected a floating point dtype, got {points.dtype}.")
    if points.ndim not in (2, 3) or points.shape[-1] not in (3, 6) or 0 in points.shape:
        raise ValueError(
            f"points: expected shape (N, 3), (N, 6), (B, N, 3) or (B, N, 6), got {tuple(points.shape)}."
        )
    if part_labels is None:
        return
    if part_labels.is_floating_point():
        raise TypeError(f"part_labels: expected an integer dtype, got {part_labels.dtype}.")
    if part_labels.shape != points.shape[:-1]:
        raise ValueError(
            f"part_labels: expected shape {tuple(points.shape[:-1])}, one per point, "
            f"got {tuple(part_labels.shape)}."
        )
