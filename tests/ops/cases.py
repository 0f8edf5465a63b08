"""Inputs that tend to break point-cloud operations, shared by the tests of all of them.

Unless a name says otherwise, coordinates are multiples of 1/256 or so: differences, squares and sums are then
exact in float32, ties are true ties, and every correct implementation must return the very same indices.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from bixt3d.ops.dispatch import BACKENDS


def grid(*shape: int, seed: int = 0, step: float = 2**-8, size: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(size, shape, generator=generator).float() * step


def _duplicates() -> Tensor:
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    return grid(2, 10, 3).repeat(1, 3, 1)[:, order]


CLOUDS: dict[str, Tensor] = {
    "one_point": grid(2, 1, 3),
    "two_points": grid(2, 2, 3),
    "one_cloud": grid(1, 33, 3),
    "odd_sizes": grid(3, 61, 3),
    "coarse_lattice": grid(2, 40, 3, step=0.25, size=4),
    "duplicates": _duplicates(),
    "all_equal": torch.full((2, 9, 3), 0.25),
    "collinear": torch.arange(24.0)[None, :, None] / 64 * torch.tensor([1.0, 2.0, -1.0]),
    "far_from_origin": grid(2, 35, 3, step=2**-10, size=1024) + 1e4,
    "near_origin": grid(2, 35, 3, step=2**-12, size=64),
    "both_signs": grid(2, 35, 3) - 0.5,
    "not_contiguous": grid(2, 3, 70).mT[:, ::2],
    "float16": grid(2, 35, 3).half(),
    "bfloat16": grid(2, 35, 3).bfloat16(),
    "float64": grid(2, 35, 3).double(),
    "inexact_float32": torch.rand(2, 37, 3, generator=torch.Generator().manual_seed(2)),
    "inexact_float64": torch.rand(2, 37, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64),
}


def every_backend(op: str):
    """Parametrise a test over all backends of ``op``."""
    return pytest.mark.parametrize("backend", [row.name for row in BACKENDS[op]])


def every_cloud():
    return pytest.mark.parametrize("name", CLOUDS)


def sq_distances(query: Tensor, points: Tensor) -> np.ndarray:
    """All squared distances (B, M, N) in float64: exact for the exact clouds."""
    q, p = query.double().numpy(), points.double().numpy()
    return ((q[:, :, None] - p[:, None]) ** 2).sum(-1)


def within_budget(got: Tensor, same_precision: Tensor, exact: Tensor) -> None:
    """Assert that an error is at most twice that of the reference in the same precision."""
    tiny = 4 * torch.finfo(got.dtype).eps * exact.abs().max().item()
    budget = 2 * (same_precision.double() - exact).abs().max().item() + tiny
    error = (got.double() - exact).abs().max().item()
    assert error <= budget, f"error {error:.3g} exceeds the budget of {budget:.3g}"
