"""Farthest point sampling."""

import torch
from torch import Tensor

from . import checks
from .dispatch import run


def farthest_point_sample(
    points: Tensor,
    num_samples: int,
    *,
    start: int | Tensor = 0,
    generator: torch.Generator | None = None,
    backend: str | None = None,
) -> Tensor:
    """Sample points that cover each cloud: every pick is as far as possible from all earlier picks.

    ``index[b, 0] = start[b]`` and, for s > 0,
    ``index[b, s] = argmax_i min_{t < s} ||points[b, i] - points[b, index[b, t]]||²``,
    with the lowest i among equally far points. Every point is a candidate, even at the origin. A cloud with fewer
    distinct positions than ``num_samples`` repeats indices once all positions are taken.

    Args:
        points: (B, N, 3) float16, bfloat16, float32 or float64, finite. Distances are computed in float32, or in
            float64 for float64 input.
        num_samples: S, from 1 to N.
        start: index of the first pick, one for all clouds or an int64 tensor (B,) with one per cloud. The range of a
            tensor is checked only on the CPU.
        generator: draws the first pick of every cloud at random. ``start`` must then keep its default. With
            ``torch.compile``, draw a tensor ``start`` outside the compiled function instead.
        backend: one of ``available_backends("farthest_point_sample")``; None picks the first that can run.

    Returns:
        index (B, S) int64 on the device of ``points``. Nothing is differentiable.

    Raises:
        ValueError: wrong shape, ``num_samples`` above N, ``start`` out of range or given with a generator,
            unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Eldar, Lindenbaum, Porat and Zeevi, "The farthest point strategy for progressive image sampling",
    1997; for point clouds Qi et al., "PointNet++", 2017, section 3.2.
    """
    checks.cloud("points", points)
    checks.count("num_samples", num_samples)
    checks.enough_points("num_samples", num_samples, points)
    if generator is not None:
        checks.generator(generator, start)
        drawn = torch.randint(
            points.shape[1], (points.shape[0],), generator=generator, device=generator.device
        )
        start = drawn.to(points.device)
    else:
        checks.start(start, points)
        if not isinstance(start, Tensor):
            start = torch.full((points.shape[0],), start, dtype=torch.int64, device=points.device)
    return _farthest_point_sample(points.detach(), num_samples, start, backend or "")


@torch.library.custom_op("bixt3d::farthest_point_sample", mutates_args=())
def _farthest_point_sample(points: Tensor, num_samples: int, start: Tensor, backend: str) -> Tensor:
    checks.start_in_range(start, points)
    return run("farthest_point_sample", backend, points, num_samples, start)


@_farthest_point_sample.register_fake
def _(points: Tensor, num_samples: int, start: Tensor, backend: str) -> Tensor:
    return points.new_empty((points.shape[0], num_samples), dtype=torch.int64)
