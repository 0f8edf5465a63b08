"""Count what a forward pass costs, on shapes alone."""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor, nn

from .layers import BidirectionalCrossAttention, CrossAttention, SelfAttention
from .layers.residual import ResidualMLP


class _NoTracking(contextlib.nullcontext):
    """Stands for the counter's tracker of modules, whose hooks on all of them would have each called by itself."""

    parents = frozenset({"Global"})


def count_operations(model: nn.Module, *inputs: Tensor) -> int:
    """Return the floating-point operations of a forward pass in evaluation mode.

    A multiplication with an addition is two; only matrix products count. Nothing is computed, and the model and its
    device are left alone. Attention counts as its formula has it, one similarity and two products, whichever backend
    runs: a counter of torch sees nothing of what happens inside an op of this toolkit, and so too little.

    Args:
        model: any model.
        *inputs: what it is called with; their shapes and dtypes count.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(False):  # in which the counter fails on the latents, an expanded parameter
        shapes = copy.deepcopy(model).eval().to("meta")
        for module in shapes.modules():
            if isinstance(module, BidirectionalCrossAttention | CrossAttention | SelfAttention | ResidualMLP):
                module.backend = "reference"
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _NoTracking()  # type: ignore[assignment]
        with sdpa_kernel(SDPBackend.MATH), counter:
            shapes(*(x.to("meta") for x in inputs))
    return counter.get_total_flops()
