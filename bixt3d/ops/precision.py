"""Precision in which distances and softmaxes are computed."""

import torch
from torch import Tensor


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float64 for float64 and float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widen(x: Tensor) -> Tensor:
    """Convert ``x`` to the dtype in which its distances are computed."""
    return x.to(accumulation_dtype(x.dtype))


def squared_radius(radius: float, dtype: torch.dtype) -> float:
    """Square ``radius`` with the rounding of a distance of the given dtype.

    Like a coordinate difference, the radius is rounded first and then squared. A point at distance ``radius`` along an
    axis is therefore inside the ball in every precision.
    """
    rounded = torch.tensor(radius, dtype=dtype, device="cpu")
    return float(rounded * rounded)
