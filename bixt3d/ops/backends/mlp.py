"""Backends of the residual MLP: ``reference`` in torch, and ``cpu`` in the compiled library, without a hidden layer."""

import ctypes
from collections.abc import Sequence
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
    """Apply one torch function after the other."""
    if update is not None:
        x = x + update
    normal = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
    hidden = F.linear(normal, weight1, bias1)
    # in place without a gradient, since the hidden layer takes the most memory
    hidden = F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden)
    branch = F.linear(hidden, weight2, bias2)
    if scale is not None:
        branch = branch * scale.to(branch.dtype).view(-1, *[1] * (x.ndim - 1))
    return torch.add(x, branch, out=out)


def cpu_why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why the library cannot run on these inputs, or None."""
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
    """Compute one tile of rows at a time, from the norm to the sum, without second derivatives."""
    *inputs, out = args
    if out is None:
        return _forward(*inputs)
    _forward_into(*inputs, out)
    return out


# Arguments that all three custom ops share, in this order.
_INPUTS = (
    "Tensor x, Tensor norm_weight, Tensor norm_bias, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, "
    "Tensor? update, Tensor? scale, float eps"
)


def _call(name: str, inputs: Sequence[Any], *others: Any) -> None:
    """Call a function of the library with the addresses of the op's inputs, in order, and their sizes."""
    *given, eps = inputs
    tensors = [value if value is None else value.contiguous() for value in given]
    addresses = [None if value is None else value.data_ptr() for value in tensors]
    x, weight1, scale = given[0], given[3], given[8]
    num_rows = x.numel() // x.shape[-1]
    cloud_rows = num_rows if scale is None or scale.numel() == 0 else num_rows // scale.numel()
    sizes = (num_rows, cloud_rows, x.shape[-1], weight1.shape[0])
    call(name, (ctypes.c_void_p * 9)(*addresses), (ctypes.c_int64 * 4)(*sizes), eps, *others)


def _empty_like(x: Tensor, *others: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _empty_grads(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(_empty_like(x) for x in inputs[:7])


@torch.library.custom_op(
    "bixt3d::cpu_residual_mlp", mutates_args=(), device_types="cpu", schema=f"({_INPUTS}) -> Tensor"
)
def _forward(*inputs: Any) -> Tensor:
    out = _empty_like(*inputs)
    _call("bixt3d_residual_mlp", inputs, out)
    return out


_forward.register_fake(_empty_like)


@torch.library.custom_op(
    "bixt3d::cpu_residual_mlp_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad, {_INPUTS}) -> ({', '.join(['Tensor'] * 7)})",
)
def _backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    """Return the gradients of x (also that of the update) and the parameters. Recomputes the hidden layer."""
    grads = _empty_grads(grad, *inputs)
    addresses = (ctypes.c_void_p * 7)(*(value.data_ptr() for value in grads))
    _call("bixt3d_residual_mlp_backward", inputs, grad.contiguous(), addresses)
    return grads


_backward.register_fake(_empty_grads)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.eps = inputs[9]
    ctx.save_for_backward(*inputs[:9])


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors  # read once only: activation checkpointing recomputes them on access
    grads = _backward(grad, *inputs, ctx.eps)
    return (*grads, None if inputs[7] is None else grads[0], None, None)


torch.library.register_autograd("bixt3d::cpu_residual_mlp", _differentiate, setup_context=_keep)
differentiates_once("cpu_residual_mlp_backward", "residual_mlp", "cpu")


@torch.library.custom_op(
    "bixt3d::cpu_residual_mlp_out",
    mutates_args=("out",),
    device_types="cpu",
    schema=f"({_INPUTS}, Tensor(a!) out) -> ()",
)
def _forward_into(*inputs: Any) -> None:
    *given, out = inputs
    _call("bixt3d_residual_mlp", given, out)
