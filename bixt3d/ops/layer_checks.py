"""Check the inputs of ops that fuse a part of a layer and take its parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import floating, same_device, same_kind, same_kind_or_autocast, shape_of, tensor


def _parameters(
    x_name: str, x: Tensor, values: Sequence[Any], shapes: dict[str, tuple[int, ...]], why: str
) -> None:
    """Require parameters of the given names and shapes, on the device of ``x`` and of a dtype that fits it."""
    for value, (name, shape) in zip(values, shapes.items(), strict=True):
        floating(name, value)
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} has shape {shape_of(value)}, expected {shape} for {why}")
        same_kind_or_autocast(x_name, x, name, value)


def mlp(
    x: Tensor,
    parameters: Sequence[Tensor],
    update: Tensor | None,
    scale: Tensor | None,
    out: Tensor | None,
) -> None:
    """Require parameters of a norm and two linear maps, and optional tensors, that fit the rows ``x``."""
    floating("x", x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x has shape {shape_of(x)}, expected (..., C) with at least one channel")
    channels, weight1 = x.shape[-1], parameters[2]
    tensor("weight1", weight1)
    hidden = weight1.shape[0] if weight1.ndim else 0
    shapes = {
        "norm_weight": (channels,),
        "norm_bias": (channels,),
        "weight1": (hidden, channels),
        "bias1": (hidden,),
        "weight2": (channels, hidden),
        "bias2": (channels,),
    }
    _parameters("x", x, parameters, shapes, f"x of {channels} channels and weight1 of {hidden} rows")
    for name, value in (("update", update), ("out", out)):
        if value is None:
            continue
        floating(name, value)
        if value.shape != x.shape:
            raise ValueError(f"{name} has shape {shape_of(value)}, expected {shape_of(x)}, the shape of x")
        same_kind_or_autocast("x", x, name, value)
    if out is not None:
        same_kind("x", x, "out", out)
        if not out.is_contiguous():
            raise ValueError("out is not contiguous, expected a contiguous tensor; pass one, or out=None")
        given = [value for value in (x, update, *parameters) if value is not None]
        if torch.is_grad_enabled() and any(value.requires_grad for value in given):
            raise ValueError(
                "out is given and an input requires a gradient, expected one of the two; "
                "pass out=None, or use torch.inference_mode()"
            )
    if scale is None:
        return
    floating("scale", scale)
    if x.ndim < 2 or tuple(scale.shape) != (x.shape[0],):
        raise ValueError(
            f"scale has shape {shape_of(scale)}, expected (B,), where B is the first size of x, of shape {shape_of(x)}"
        )
    same_device("x", x, "scale", scale)
    if scale.requires_grad:
        raise ValueError(
            "scale requires a gradient, but the op computes none for it; detach it, or multiply outside the op"
        )


def stream(latent_ref: Tensor, latent_val: Tensor | None, tokens: Tensor, *parameters: Tensor | None) -> None:
    """Require latents, tokens (B, N, C), and the parameters of a norm and two linear maps that fit both."""
    floating("tokens", tokens)
    if tokens.ndim != 3 or 0 in tokens.shape[1:]:
        raise ValueError(
            f"tokens has shape {shape_of(tokens)}, expected (B, N, C) with at least one token and channel"
        )
    batch, _, channels = tokens.shape
    floating("latent_ref", latent_ref)
    if latent_ref.ndim != 4 or latent_ref.shape[0] not in (1, batch) or 0 in latent_ref.shape[1:]:
        raise ValueError(
            f"latent_ref has shape {shape_of(latent_ref)}, expected (B, H, M, D) or (1, H, M, D), none of them 0, "
            f"for tokens of shape {shape_of(tokens)}"
        )
    same_kind_or_autocast("tokens", tokens, "latent_ref", latent_ref)
    wide = latent_ref.shape[1] * latent_ref.shape[3]
    why = f"tokens of {channels} channels and latents {shape_of(latent_ref)}"
    shapes = {
        "norm_weight": (channels,),
        "norm_bias": (channels,),
        "weight": (2 * wide, channels),
        "bias": (2 * wide,),
    }
    _parameters("tokens", tokens, parameters[:4], shapes, why)
    for_tokens = (latent_val, *parameters[4:])
    if any(value is not None for value in for_tokens):
        shapes = {
            "latent_val": tuple(latent_ref.shape),
            "out_weight": (channels, wide),
            "out_bias": (channels,),
        }
        _parameters("tokens", tokens, for_tokens, shapes, why)
