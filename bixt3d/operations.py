"""Count the floating-point operations of a forward pass, from shapes alone."""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor, nn

from .layers import BidirectionalCrossAttention, CrossAttention, SelfAttention
from .layers.residual import ResidualMLP


class _NoTracking(contextlib.nullcontext):
    """Replaces the counter's module tracker, whose hooks on all modules would turn the fast paths off."""

    parents = frozenset({"Global"})


def count_operations(model: nn.Module, *inputs: Tensor) -> int:
    """Return the number of floating-point operations of a forward pass in evaluation mode.

    Only matrix products are counted, and a multiply-add counts as two operations. The model runs on the meta device,
    so nothing is computed and the given model is not changed. Attention is counted by its formula, one similarity and
    two products, whichever backend is in use: torch's own counter cannot look inside the toolkit's ops, and would
    count too little.

    Args:
        model: any model.
        *inputs: inputs of the model; only their shapes and dtypes matter.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # in inference mode the counter fails on the latents, which are an expanded parameter
    with torch.inference_mode(False):
        shapes = copy.deepcopy(model).eval().to("meta")
        for module in shapes.modules():
            if isinstance(module, BidirectionalCrossAttention | CrossAttention | SelfAttention | ResidualMLP):
                module.backend = "reference"
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _NoTracking()  # type: ignore[assignment]
        with sdpa_kernel(SDPBackend.MATH), counter:
            shapes(*(x.to("meta") for x in inputs))
    return counter.get_total_flops()
