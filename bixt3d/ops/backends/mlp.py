"""Backends of the residual MLP: ``reference`` in torch, ``cpu`` in the compiled library, without a hidden layer."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu_library
from .cpu import call


def reference(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    eps: float,
) -> Tensor:
    """Apply one function of torch after the other."""
    normal = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    hidden = F.linear(normal, weight1, bias1)
    # in place where that can be: the hidden layer is what the most memory goes to
    hidden = F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden)
    return x + F.linear(hidden, weight2, bias2)


def cpu_why_not(x: Tensor | None = None, *others: Tensor | float) -> str | None:
    """Say what the library needs, or why there is none."""
    tensors = [value for value in (x, *others) if isinstance(value, Tensor)]
    if any(value.device.type != "cpu" for value in tensors):
        return "needs tensors on the CPU"
    dtypes = {value.dtype for value in tensors}
    if torch.is_autocast_enabled("cpu"):
        dtypes.add(torch.get_autocast_dtype("cpu"))
    for dtype in dtypes - {torch.float32}:
        return f"takes float32, not {str(dtype).removeprefix('torch.')}"
    if torch.is_grad_enabled() and any(value.requires_grad for value in tensors):
        return "records no gradient, and one is wanted here (see torch.inference_mode)"
    return cpu_library.why_not()


@torch.library.custom_op("bixt3d::cpu_residual_mlp", mutates_args=(), device_types="cpu")
def cpu(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    eps: float,
) -> Tensor:
    """Work on a tile of rows from the norm to the sum."""
    x, norm_weight, norm_bias, weight1, bias1, weight2, bias2 = (
        value.contiguous() for value in (x, norm_weight, norm_bias, weight1, bias1, weight2, bias2)
    )
    out = torch.empty_like(x)
    num_rows = x.numel() // x.shape[-1]
    call(
        "bixt3d_residual_mlp", x, num_rows, x.shape[-1], weight1.shape[0], norm_weight, norm_bias, eps,
        weight1, bias1, weight2, bias2, out,
    )  # fmt: skip
    return out


@cpu.register_fake
def _(x: Tensor, *others: Tensor | float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
