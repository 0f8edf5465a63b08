"""Base class and helpers of the point cloud transforms."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

Drawn = tuple[Tensor, "Tensor | None"]
Mixed = tuple[Tensor, "Tensor | None", "Tensor | None"]


class Transform:
    """Base class of transforms: checks the input, and handles single clouds as batches of one.

    Attributes:
        mixes: whether :meth:`mix` mixes clouds.
    """

    mixes: ClassVar[bool] = False

    def __call__(
        self, points: Tensor, part_labels: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the transformed points, and the part labels if given."""
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
        """Mix the clouds of a batch with each other, after the transform was called; does nothing by default.

        Args:
            points: ``(B, N, C)``.
            part_labels: ``(B, N)`` integers, or None.
            labels: ``(B,)`` int64.
            num_classes: number of classes.
            generator: source of the random numbers.

        Returns:
            Points, part labels, and ``(B, num_classes)`` float32 targets, each row a distribution over the classes.
            The targets are None if the labels do not change.
        """
        return points, part_labels, None

    def for_model(self, min_points: int) -> Transform:
        """Return the transform adapted to a model that needs at least ``min_points`` points; itself by default."""
        return self

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        raise NotImplementedError(f"{type(self).__name__} does not implement _apply.")


def check_callable(argument: str, transform: Any) -> None:
    """Raise TypeError unless an object, which need not be a :class:`Transform`, can be called like one."""
    try:
        called = transform.forward if isinstance(transform, nn.Module) else transform
        inspect.signature(called).bind(None, None, generator=None)
    except TypeError as error:
        raise TypeError(
            f"{argument}: expected a callable (points, part_labels=None, *, generator=None), but {_name(transform)} "
            f"cannot be called this way ({error})."
        ) from error
    except ValueError:  # callables written in C may have no signature
        return


def call(
    transform: Callable, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None
) -> Drawn:
    """Call a transform, or another callable, on a batch and check the points and part labels (or None) it returns.

    Raises:
        TypeError: it did not return tensors like those it was given: points, or points and part labels.
        ValueError: the number of clouds or channels changed, or the part labels do not match the points.
    """
    given = (points,) if part_labels is None else (points, part_labels)
    changed = transform(*given, generator=generator)
    changed = changed if isinstance(changed, tuple) else (changed,)
    if len(changed) != len(given) or not all(isinstance(t, Tensor) for t in changed):
        wanted = "points" if part_labels is None else "points and part labels, as it was given both"
        got = ", ".join(type(t).__name__ for t in changed)
        raise TypeError(f"augment: {_name(transform)} returned {got}; expected {wanted}.")
    new, labels = changed[0], changed[1] if part_labels is not None else None
    same = new.ndim == 3 and (new.shape[0], new.shape[2]) == (points.shape[0], points.shape[2])
    if not same or (labels is not None and labels.shape != new.shape[:2]):
        got = " and ".join(str(tuple(t.shape)) for t in changed)
        raise ValueError(
            f"augment: {_name(transform)} returned {got} for points {tuple(points.shape)}; expected as many clouds and "
            "channels, and a part label for each point."
        )
    return new, labels


def mix_of(transform: Any) -> Callable[..., Mixed]:
    """Return the ``mix`` method of a transform, or a no-op if it has none."""
    return getattr(transform, "mix", Transform().mix)


def _name(transform: Any) -> str:
    return getattr(transform, "__name__", type(transform).__name__)


def permutations(points: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw a random permutation of ``count`` points for each cloud, ``(B, count)`` int64."""
    if points.device.type == "cpu":  # eight times faster than sorting on the CPU
        return torch.stack([torch.randperm(count, generator=generator) for _ in range(len(points))])
    shape = (len(points), count)
    # always float32: in half precision many draws would be equal, and equal ones would keep their order
    return torch.rand(shape, generator=generator, dtype=torch.float32, device=points.device).argsort(dim=1)


def pick(points: Tensor, index: Tensor) -> Tensor:
    """Pick points per cloud: ``out[b, i] = points[b, index[b, i]]``."""
    first = torch.arange(len(points), device=points.device)[:, None] * points.shape[1]
    rows = (first + index).flatten()  # faster than gather
    return points.flatten(0, 1).index_select(0, rows).unflatten(0, tuple(index.shape))


def take(points: Tensor, part_labels: Tensor | None, index: Tensor) -> Drawn:
    """Pick points per cloud, and the part labels that go with them."""
    return pick(points, index), None if part_labels is None else part_labels.gather(1, index)


def check_range(argument: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ValueError(f"{argument}: expected a number from {low} to {high}, got {value}.")


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
