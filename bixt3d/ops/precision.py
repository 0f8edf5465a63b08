"""The precision in which distances and softmaxes are computed, whatever the precision of the input."""

import torch
from torch import Tensor


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float64 for float64 and float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def widen(x: Tensor) -> Tensor:
    """Return ``x`` in the dtype its distances are computed in."""
    return x.to(accumulation_dtype(x.dtype))


def squared_radius(radius: float, dtype: torch.dtype) -> float:
    """Return ``radius`` squared as a distance of the same dtype would be.

    The radius is rounded first and squared second, exactly what happens to a coordinate difference: a point
    that lies ``radius`` away along an axis is then inside the ball in every precision.
    """
    rounded = torch.tensor(radius, dtype=dtype, device="cpu")
    return float(rounded * rounded)
