"""Compile a model for prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def compile_for_prediction(model: nn.Module) -> Callable:
    """Compile a model in evaluation mode for calls without gradients.

    One graph serves every batch size and number of points. The weights are frozen into it, so later changes to them
    have no effect. On a CPU, they are packed for the matrix products, which are fused with bias and GELU. The first
    call compiles. On a CPU, PointMLP becomes at least twice as fast and BiXT no faster (docs/benchmarks.md). GPUs were
    not measured.

    Args:
        model: in evaluation mode, on its device.

    Returns:
        A function with the arguments and results of the model. Its results are equal up to rounding.
    """
    return torch.compile(model, dynamic=True, options={"freezing": True})
