"""Backends of :func:`bixt3d.ops.stream_attention`: ``reference`` in torch, ``cpu`` in the compiled library.

``cpu`` stores neither the normalised tokens nor their references, values and results (``csrc/attention_tokens.h``).
"""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from . import attention, cpu, cpu_attention, cpu_library

LANES = 16  # token channels and head widths have to be multiples of this


def reference(
    latent_ref: Tensor,
    latent_val: Tensor | None,
    tokens: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor | None,
    out_bias: Tensor | None,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Apply one torch function after the other."""
    normal = F.layer_norm(tokens, tokens.shape[-1:], norm_weight, norm_bias, eps)
    sides = F.linear(normal, weight, bias).unflatten(-1, (2, latent_ref.shape[1], -1)).permute(2, 0, 3, 1, 4)
    ref, val = sides.unbind(0)
    if latent_val is None or out_weight is None:
        latents, logsumexp = attention.reference_latents(latent_ref, ref, val, scale, 0.0, True)
        return latents, None, logsumexp
    latents, results, logsumexp = attention.reference(latent_ref, latent_val, ref, val, scale, 0.0, True)
    return latents, F.linear(results.transpose(1, 2).flatten(2), out_weight, out_bias), logsumexp


def cpu_why_not(
    latent_ref: Tensor | None = None,
    latent_val: Tensor | None = None,
    tokens: Tensor | None = None,
    *others: Any,
    **options: Any,
) -> str | None:
    """Return why the library cannot run on these inputs, or None."""
    tensors = checks.tensors_among((latent_ref, latent_val, tokens, *others), options)
    if any(value.device.type != "cpu" for value in tensors):
        return "needs tensors on the CPU"
    if any(value.dtype != torch.float32 for value in tensors) or torch.is_autocast_enabled("cpu"):
        return "takes only float32, without autocast"
    if torch.is_grad_enabled() and any(value.requires_grad for value in tensors):
        return "computes no gradient, but an input requires one (see torch.inference_mode)"
    if any(x is not None and x.shape[-1] % LANES for x in (latent_ref, tokens)):
        return f"takes heads and tokens whose channels are a multiple of {LANES}"
    if latent_ref is not None and latent_ref.shape[2] > cpu_attention.MAX_LATENTS:
        return f"takes at most {cpu_attention.MAX_LATENTS} latents, got {latent_ref.shape[2]}"
    return cpu_library.why_not()


def cpu_stream(*inputs: Any) -> tuple[Tensor, Tensor | None, Tensor]:
    """Normalise, map, attend and map again, one tile of tokens at a time."""
    latents, update, logsumexp = _stream(*inputs)
    return latents, None if inputs[1] is None else update, logsumexp


@torch.library.custom_op("bixt3d::cpu_stream_attention", mutates_args=(), device_types="cpu")
def _stream(
    latent_ref: Tensor,
    latent_val: Tensor | None,
    tokens: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor | None,
    out_bias: Tensor | None,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents, the update (empty if only the latents attend) and the log-sums."""
    nothing = latent_ref[..., :0]
    sides = [cpu_attention.in_rows(x) for x in (latent_ref, nothing if latent_val is None else latent_val)]
    inputs = (tokens, norm_weight, norm_bias, weight, bias, out_weight, out_bias)
    stream = [None if x is None else x.contiguous() for x in inputs]
    batch, (shared, heads, count, width) = tokens.shape[0], latent_ref.shape
    latents, latent_sums, update = _results(latent_ref, latent_val, tokens)
    sizes = [batch, heads, count, tokens.shape[1], width, sides[1].shape[3], width, shared, sides[1].shape[0]]
    cpu.call(
        "bixt3d_attention_of_stream",
        *cpu_attention.places([*sides, None, None, latents]),
        (ctypes.c_int64 * 9)(*sizes),
        scale,
        latent_sums,
        (ctypes.c_void_p * 8)(*(None if x is None else x.data_ptr() for x in (*stream, update))),
        tokens.shape[2],
        eps,
    )
    return latents, update, cpu_attention.logsumexp(latent_sums)


def _results(latent_ref: Tensor, latent_val: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Allocate the latents' results, the sums that the library writes for them, and the tokens' update."""
    batch, (_, heads, count, width) = tokens.shape[0], latent_ref.shape
    latents = tokens.new_empty(batch, count, heads, width).transpose(1, 2)  # heads merge as a view
    update = tokens.new_empty(0 if latent_val is None else tokens.shape)
    return latents, tokens.new_empty(batch, heads, count, 2), update


@_stream.register_fake
def _(
    latent_ref: Tensor, latent_val: Tensor | None, tokens: Tensor, *others: Tensor | float | None
) -> tuple[Tensor, Tensor, Tensor]:
    latents, latent_sums, update = _results(latent_ref, latent_val, tokens)
    return latents, update, latent_sums[..., 0].clone()
