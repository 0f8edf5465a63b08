"""Backends of the residual MLP: ``reference`` in torch, ``cpu`` in the compiled library, without a hidden layer."""

import ctypes
from typing import Any

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
    scale: Tensor | None,
    eps: float,
) -> Tensor:
    """Apply one function of torch after the other."""
    normal = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    hidden = F.linear(normal, weight1, bias1)
    # in place where that can be: the hidden layer is what the most memory goes to
    hidden = F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden)
    update = F.linear(hidden, weight2, bias2)
    if scale is not None:
        update = update * scale.to(update.dtype).view(-1, *[1] * (x.ndim - 1))
    return x + update


def cpu_why_not(*inputs: Tensor | float | None) -> str | None:
    """Say what the library needs, or why there is none."""
    tensors = [value for value in inputs if isinstance(value, Tensor)]
    if any(value.device.type != "cpu" for value in tensors):
        return "needs tensors on the CPU"
    dtypes = {value.dtype for value in tensors}
    if torch.is_autocast_enabled("cpu"):
        dtypes.add(torch.get_autocast_dtype("cpu"))
    for dtype in dtypes - {torch.float32}:
        return f"takes float32, not {str(dtype).removeprefix('torch.')}"
    return cpu_library.why_not()


def _call(
    name: str, x: Tensor, parameters: tuple[Tensor, ...], scale: Tensor | None, eps: float, *others: Any
) -> None:
    """Call a function of the library with the addresses of the inputs, in the order of the op, and their sizes."""
    tensors = [value if value is None else value.contiguous() for value in (x, *parameters, scale)]
    addresses = [None if value is None else value.data_ptr() for value in tensors]
    num_rows = x.numel() // x.shape[-1]
    cloud_rows = num_rows if scale is None or scale.numel() == 0 else num_rows // scale.numel()
    sizes = (num_rows, cloud_rows, x.shape[-1], parameters[2].shape[0])
    call(name, (ctypes.c_void_p * 8)(*addresses), (ctypes.c_int64 * 4)(*sizes), eps, *others)


@torch.library.custom_op("bixt3d::cpu_residual_mlp", mutates_args=(), device_types="cpu")
def cpu(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    scale: Tensor | None,
    eps: float,
) -> Tensor:
    """Work on a tile of rows from the norm to the sum; differentiates once."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    parameters = (norm_weight, norm_bias, weight1, bias1, weight2, bias2)
    _call("bixt3d_residual_mlp", x, parameters, scale, eps, out)
    return out


@cpu.register_fake
def _(x: Tensor, *others: Tensor | float | None) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("bixt3d::cpu_residual_mlp_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    scale: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients by all inputs but the scale; the hidden layer is computed again."""
    parameters = (norm_weight, norm_bias, weight1, bias1, weight2, bias2)
    grads = _empty_grads(x, *parameters)
    addresses = (ctypes.c_void_p * 7)(*(value.data_ptr() for value in grads))
    _call("bixt3d_residual_mlp_backward", x, parameters, scale, eps, grad.contiguous(), addresses)
    return grads


def _empty_grads(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs)  # type: ignore[return-value]


@_backward.register_fake
def _(grad: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_grads(*inputs[:7])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.eps = inputs[8]
    ctx.save_for_backward(*inputs[:8])


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad, *ctx.saved_tensors, ctx.eps), None, None)


torch.library.register_autograd("bixt3d::cpu_residual_mlp", _differentiate, setup_context=_keep)
