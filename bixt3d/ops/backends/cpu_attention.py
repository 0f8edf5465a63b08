"""Backend ``cpu`` of attention, in the compiled library: one pass over the tokens forward and one backward.

Similarities are computed tile by tile and never written to memory, which holds O(N + M) numbers besides the inputs.
The work is split by cloud, head and range of tokens, never by the number of threads, so results do not depend on it.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import checks
from . import cpu, cpu_library
from .once import differentiates_once

DTYPES = (torch.bfloat16, torch.float32)
# For the one-sided form: with more latents, torch's attention is faster.
MAX_LATENTS = 256


def why_not(*inputs: Any, dropout_p: float = 0.0, training: bool = True, **options: Any) -> str | None:
    """Return why the library cannot run on these inputs, or None."""
    if training and dropout_p > 0:
        return "does not support dropout (dropout_p), since it stores no attention maps"
    for x in checks.tensors_among(inputs, options):
        if x.device.type != "cpu":
            return "needs tensors on the CPU"
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if dtype not in DTYPES:
            return f"takes bfloat16 and float32, not {checks.dtype_name(dtype)}"
    return cpu_library.why_not()


def attend(
    latent_ref: Tensor,
    latent_val: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    scale: float,
    dropout_p: float,
    return_logsumexp: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Attend in both directions at once, without second derivatives."""
    inputs = [latent_ref, latent_val, token_ref, token_val]
    if torch.is_autocast_enabled("cpu"):
        inputs = [x.to(torch.get_autocast_dtype("cpu")) for x in inputs]
    latents, tokens, latent_sums = _attend(*inputs, scale)
    if not return_logsumexp:
        return latents, tokens, None
    return latents, tokens, logsumexp(latent_sums.detach())


def logsumexp(latent_sums: Tensor) -> Tensor:
    """Return the log-sums, given what the library writes: a reference r and the sum over tokens of 2^(S / ln 2 - r)."""
    reference, total = latent_sums.unbind(-1)
    return (reference + total.log2()) * math.log(2)


def latents_why_not(latent_ref: Tensor | None = None, *others: Any, **options: Any) -> str | None:
    """Return why the one-sided form cannot run, or None. It limits the latents, since each tile of tokens meets all."""
    if latent_ref is not None and latent_ref.shape[2] > MAX_LATENTS:
        return f"takes at most {MAX_LATENTS} latents here, got {latent_ref.shape[2]}"
    return why_not(latent_ref, *others, **options)


def attend_latents(
    latent_ref: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    scale: float,
    dropout_p: float,
    return_logsumexp: bool,
) -> tuple[Tensor, Tensor | None]:
    """Let only the latents attend, by giving them values of width zero."""
    nothing = latent_ref[..., :0]
    latents, _, logsumexp = attend(
        latent_ref, nothing, token_ref, token_val, scale, dropout_p, return_logsumexp
    )
    return latents, logsumexp


def heads_inside(x: Tensor, rows: int, width: int) -> Tensor:
    """Return an empty (B, H, rows, width) tensor like ``x`` (B, H, ...), stored as (B, rows, H, width).

    Merging the heads afterwards then gives a view, not a copy.
    """
    return x.new_empty(x.shape[0], rows, x.shape[1], width).transpose(1, 2)


def places(tensors: Sequence[Tensor | None]) -> tuple[Any, Any]:
    """Return the addresses and strides of up to twelve tensors (B, H, rows, width), as the library expects them."""
    addresses, strides = [], []
    for x in tensors:
        addresses.append(None if x is None else x.data_ptr())
        strides += (
            [0, 0, 0] if x is None else [x.stride(0) if x.shape[0] > 1 else 0, x.stride(1), x.stride(2)]
        )
    return (ctypes.c_void_p * 12)(*addresses), (ctypes.c_int64 * 36)(*strides)


def _call(name: str, inputs: list[Tensor], others: list[Tensor], scale: float, latent_sums: Tensor) -> None:
    """Call a function of the library with the addresses, strides and sizes of up to twelve tensors.

    These are, in order, the four inputs, the two results, their gradients and the gradients of the inputs.
    """
    latent_ref, latent_val, token_ref, token_val = inputs
    batch, heads, num_tokens, width = token_ref.shape
    sizes = [batch, heads, latent_ref.shape[2], num_tokens, width, latent_val.shape[3], token_val.shape[3]]
    sizes += [latent_ref.shape[0], latent_val.shape[0]]
    cpu.call(
        name,
        *places([*inputs, *others]),
        (ctypes.c_int64 * 9)(*sizes),
        scale,
        token_ref.dtype == torch.bfloat16,
        latent_sums,
    )


def in_rows(x: Tensor) -> Tensor:
    """Return ``x`` with a last axis of stride 1, as the library requires. Other strides are free."""
    return x if x.stride(-1) == 1 else x.contiguous()


@torch.library.custom_op("bixt3d::cpu_bidirectional_attention", mutates_args=(), device_types="cpu")
def _attend(
    latent_ref: Tensor, latent_val: Tensor, token_ref: Tensor, token_val: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents, tokens and (B, H, M, 2): a reference r and the sum over tokens of 2^(S / ln 2 - r)."""
    inputs = [in_rows(x) for x in (latent_ref, latent_val, token_ref, token_val)]
    latents, tokens, latent_sums = _empty_results(*inputs)
    _call("bixt3d_attention", inputs, [latents, tokens], scale, latent_sums)
    return latents, tokens, latent_sums


@_attend.register_fake
def _empty_results(
    latent_ref: Tensor, latent_val: Tensor, token_ref: Tensor, token_val: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    latents = heads_inside(token_ref, latent_ref.shape[2], token_val.shape[3])
    tokens = heads_inside(token_ref, token_ref.shape[2], latent_val.shape[3])
    return latents, tokens, token_ref.new_empty(*latents.shape[:3], 2, dtype=torch.float32)


@torch.library.custom_op("bixt3d::cpu_bidirectional_attention_backward", mutates_args=(), device_types="cpu")
def _attend_backward(
    latent_grad: Tensor,
    token_grad: Tensor,
    latent_ref: Tensor,
    latent_val: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    latents: Tensor,
    tokens: Tensor,
    latent_sums: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the four inputs."""
    inputs = [in_rows(x) for x in (latent_ref, latent_val, token_ref, token_val)]
    results = [in_rows(x) for x in (latents, tokens, latent_grad, token_grad)]
    grads = [_rows_like(x) for x in (latent_ref, latent_val, token_ref, token_val)]
    if token_ref.shape[0] * token_ref.shape[1] == 0:  # shared latents are not empty even then
        return grads[0].zero_(), grads[1].zero_(), grads[2], grads[3]
    _call("bixt3d_attention_backward", inputs, [*results, *grads], scale, latent_sums)
    return grads[0], grads[1], grads[2], grads[3]


def _rows_like(x: Tensor) -> Tensor:
    """Return memory for the gradient of ``x``, in the layout of ``x`` if its rows are contiguous."""
    return in_rows(torch.empty_like(in_rows(x)))


@_attend_backward.register_fake
def _(latent_grad: Tensor, token_grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(_rows_like(x) for x in inputs[:4])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.scale = inputs[4]
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.mark_non_differentiable(output[2])


def _differentiate(ctx: Any, latent_grad: Tensor, token_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*_attend_backward(latent_grad, token_grad, *ctx.saved_tensors, ctx.scale), None)


torch.library.register_autograd("bixt3d::cpu_bidirectional_attention", _differentiate, setup_context=_keep)
differentiates_once("cpu_bidirectional_attention_backward", "attention", "cpu")
