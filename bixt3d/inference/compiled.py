"""Compile a model that will only predict."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def compile_for_prediction(model: nn.Module) -> Callable:
    """Return a compiled form of a model in evaluation mode, to be called where no gradient is recorded.

    One graph serves every batch size and number of points. Weights are frozen into it: on a CPU they are laid
    out for the matrix products, which take bias and GELU along. Compiling happens in the first call. On a CPU
    PointMLP becomes twice as fast or more and BiXT no faster (docs/benchmarks.md); GPUs were not measured. Later
    changes of the weights are not seen.

    Args:
        model: in evaluation mode, on its device.

    Returns:
        A function with the arguments and results of the model; results agree to rounding.
    """
    return torch.compile(model, dynamic=True, options={"freezing": True})
