"""Inputs of the op benchmark. A case is one op, or its backward pass, on inputs of one size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One op, or its backward pass, on inputs of one size.

    ``work`` is the number of distances that a brute-force method computes. With ``grad``, a gradient of the result, the
    case is the backward pass to the features.
    """

    op: str
    label: str
    arguments: tuple[Any, ...]
    work: int = 0
    grad: Tensor | None = None


def cases(device: str, quick: bool) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)

    def cloud(batch: int, points: int, channels: int = 3) -> Tensor:
        return torch.rand(batch, points, channels, generator=generator).to(device)

    sizes = [(32, 1024, 512), (8, 4096, 1024), (1, 100_000, 4096)]
    if not quick:
        sizes.append((1, 1_000_000, 16_384))
    for b, n, s in sizes:
        yield Case("farthest_point_sample", f"{b}x{n:,} -> {s:,}", (cloud(b, n), s), b * n * s)
    for b, m, n in ((32, 512, 1024), (8, 1024, 4096), (1, 4096, 100_000)):
        points = cloud(b, n)
        yield Case("knn", f"{b}x({m:,} of {n:,}), k 24", (points[:, :m].contiguous(), points, 24), b * m * n)
    for b, m, n, radius in ((32, 512, 1024, 0.2), (1, 4096, 100_000, 0.05)):
        points = cloud(b, n)
        arguments = (points[:, :m].contiguous(), points, radius, 32)
        yield Case("ball_query", f"{b}x({m:,} of {n:,}), r {radius}, K 32", arguments, b * m * n)
    points = cloud(32, 1024)
    yield Case("three_nn", "32x(1,024 of 512)", (points, points[:, :512].contiguous()), 2**24)
    yield from _feature_cases(generator, device)


def _feature_cases(generator: torch.Generator, device: str) -> Iterator[Case]:
    """Yield cases with whole-number features and quarter weights, whose sums are exact in any order."""

    def whole(*shape: int, to: int = 9) -> Tensor:
        return torch.randint(-to, to, shape, generator=generator).float().to(device)

    b, n, c = 8, 1024, 64
    for op, shape, points in (
        ("gather_points", (b, n // 2), n),
        ("group_points", (b, n, 24), n),
        ("three_interpolate", (b, n, 3), n // 2),
    ):
        index = torch.randint(points, shape, generator=generator).to(device)
        arguments: tuple[Any, ...] = (whole(b, points, c), index)
        if op == "three_interpolate":
            arguments = (*arguments, whole(*shape, to=4).abs() / 4)
        label = "x".join(f"{size:,}" for size in shape) + f" of {points:,}, C {c}"
        yield Case(op, label, arguments)
        out = (*shape, c) if op == "group_points" else (*shape[:2], c)
        yield Case(op, f"{label}, backward", arguments, grad=whole(*out))
