"""Backends of the residual MLP: ``reference`` in torch, ``cpu`` in the compiled library, without a hidden layer."""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from . import cpu_library
from .cpu import call
from .once import differentiates_once


def reference(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    update: Tensor | None,
    scale: Tensor | None,
    eps: float,
    out: Tensor | None,
) -> Tensor:
    """Apply one function of torch after the other."""
    if update is not None:
        x = x + update
    normal = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    hidden = F.linear(normal, weight1, bias1)
    # in place where that can be: the hidden layer is what the most memory goes to
    hidden = F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden)
    branch = F.linear(hidden, weight2, bias2)
    if scale is not None:
        branch = branch * scale.to(branch.dtype).view(-1, *[1] * (x.ndim - 1))
    return torch.add(x, branch, out=out)


def cpu_why_not(*inputs: Any, **options: Any) -> str | None:
    """Say what the library needs, or why there is none."""
    tensors = checks.tensors_among(inputs, options)
    if any(value.device.type != "cpu" for value in tensors):
        return "needs tensors on the CPU"
    dtypes = {value.dtype for value in tensors}
    if torch.is_autocast_enabled("cpu"):
        dtypes.add(torch.get_autocast_dtype("cpu"))
    for dtype in dtypes - {torch.float32}:
        return f"takes float32, not {checks.dtype_name(dtype)}"
    return cpu_library.why_not()


def cpu(*args: Any) -> Tensor:
    """Work on a tile of rows from the norm to the sum; differentiates once."""
    *inputs, out = args
    if out is None:
        return _forward(*inputs)
    _forward_into(*inputs, out)
    return out


def _call(name: str, inputs: tuple[Any, ...], eps: float, *others: Any) -> None:
    """Call a function of the library with the addresses of the inputs, in the order of the op, and their sizes."""
    tensors = [value if value is None else value.contiguous() for value in inputs]
    addresses = [None if value is None else value.data_ptr() for value in tensors]
    x, weight1, scale = inputs[0], inputs[3], inputs[8]
    num_rows = x.numel() // x.shape[-1]
    cloud_rows = num_rows if scale is None or scale.numel() == 0 else num_rows // scale.numel()
    sizes = (num_rows, cloud_rows, x.shape[-1], weight1.shape[0])
    call(name, (ctypes.c_void_p * 9)(*addresses), (ctypes.c_int64 * 4)(*sizes), eps, *others)


@torch.library.custom_op("bixt3d::cpu_residual_mlp", mutates_args=(), device_types="cpu")
def _forward(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    update: Tensor | None,
    scale: Tensor | None,
    eps: float,
) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    inputs = (x, norm_weight, norm_bias, weight1, bias1, weight2, bias2, update, scale)
    _call("bixt3d_residual_mlp", inputs, eps, out)
    return out


@_forward.register_fake
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
    update: Tensor | None,
    scale: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients by x, which is that by the update, and the parameters; hidden layers are computed again."""
    inputs = (x, norm_weight, norm_bias, weight1, bias1, weight2, bias2, update, scale)
    grads = _empty_grads(*inputs[:7])
    addresses = (ctypes.c_void_p * 7)(*(value.data_ptr() for value in grads))
    _call("bixt3d_residual_mlp_backward", inputs, eps, grad.contiguous(), addresses)
    return grads


def _empty_grads(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs)  # type: ignore[return-value]


@_backward.register_fake
def _(grad: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_grads(*inputs[:7])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.eps = inputs[9]
    ctx.save_for_backward(*inputs[:9])


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors  # to be asked for once: a checkpoint computes them then
    grads = _backward(grad, *inputs, ctx.eps)
    return (*grads, None if inputs[7] is None else grads[0], None, None)


torch.library.register_autograd("bixt3d::cpu_residual_mlp", _differentiate, setup_context=_keep)
differentiates_once("cpu_residual_mlp_backward", "residual_mlp", "cpu")


@torch.library.custom_op("bixt3d::cpu_residual_mlp_out", mutates_args=("out",), device_types="cpu")
def _forward_into(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    update: Tensor | None,
    scale: Tensor | None,
    eps: float,
    out: Tensor,
) -> None:
    inputs = (x, norm_weight, norm_bias, weight1, bias1, weight2, bias2, update, scale)
    _call("bixt3d_residual_mlp", inputs, eps, out)
