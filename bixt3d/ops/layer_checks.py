"""Checks of ops that are a part of a layer, with its parameters."""

from typing import Any

import torch
from torch import Tensor

from .checks import floating, same_device, same_kind, shape_of, tensor


def _like(x_name: str, x: Tensor, name: str, value: Tensor) -> None:
    """Require the device of ``x``, and its dtype unless autocast brings both to one."""
    same_device(x_name, x, name, value)
    if value.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        same_kind(x_name, x, name, value)


def _parameters(x_name: str, x: Tensor, expected: dict[str, tuple[Any, tuple[int, ...]]], why: str) -> None:
    """Require parameters of the given shapes beside ``x``."""
    for name, (value, shape) in expected.items():
        floating(name, value)
        if tuple(value.shape) != shape:
            raise ValueError(f"{name} has shape {shape_of(value)}, expected {shape} beside {why}")
        _like(x_name, x, name, value)


def mlp(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> None:
    """Require rows of at least one channel, and the parameters of a norm and two linear maps that fit them."""
    floating("x", x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x has shape {shape_of(x)}, expected (..., C) with at least one channel")
    channels = x.shape[-1]
    tensor("weight1", weight1)
    hidden = weight1.shape[0] if weight1.ndim else 0
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "norm_weight": (norm_weight, (channels,)),
        "norm_bias": (norm_bias, (channels,)),
        "weight1": (weight1, (hidden, channels)),
        "bias1": (bias1, (hidden,)),
        "weight2": (weight2, (channels, hidden)),
        "bias2": (bias2, (channels,)),
    }
    _parameters("x", x, expected, f"x of {channels} channels and weight1 of {hidden} rows")


def mlp_options(
    x: Tensor,
    parameters: tuple[Tensor, ...],
    update: Tensor | None,
    scale: Tensor | None,
    out: Tensor | None,
) -> None:
    """Require an update and a place for the result like the rows ``x``, and a factor for each sample of these."""
    for name, value in (("update", update), ("out", out)):
        if value is None:
            continue
        floating(name, value)
        if value.shape != x.shape:
            raise ValueError(f"{name} has shape {shape_of(value)}, expected {shape_of(x)} as x has")
        _like("x", x, name, value)
    if out is not None:
        same_kind("x", x, "out", out)
        if not out.is_contiguous():
            raise ValueError(
                "out is not contiguous; pass out=None, or memory whose rows lie one after the other"
            )
        given = [value for value in (x, update, *parameters) if value is not None]
        if torch.is_grad_enabled() and any(value.requires_grad for value in given):
            raise ValueError("out records no gradient, and one is wanted here (see torch.inference_mode)")
    if scale is None:
        return
    floating("scale", scale)
    if x.ndim < 2 or tuple(scale.shape) != (x.shape[0],):
        raise ValueError(
            f"scale has shape {shape_of(scale)}, expected (B,) with the first size of x, which has shape {shape_of(x)}"
        )
    same_device("x", x, "scale", scale)
    if scale.requires_grad:
        raise ValueError(
            "scale requires a gradient, and none flows to it; detach it, or multiply outside the op"
        )


def stream(
    latent_ref: Tensor,
    latent_val: Tensor | None,
    tokens: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor | None,
    out_bias: Tensor | None,
) -> None:
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
            f"beside tokens of shape {shape_of(tokens)}"
        )
    _like("tokens", tokens, "latent_ref", latent_ref)
    wide = latent_ref.shape[1] * latent_ref.shape[3]
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "norm_weight": (norm_weight, (channels,)),
        "norm_bias": (norm_bias, (channels,)),
        "weight": (weight, (2 * wide, channels)),
        "bias": (bias, (2 * wide,)),
    }
    results: dict[str, tuple[Any, tuple[int, ...]]] = {
        "latent_val": (latent_val, tuple(latent_ref.shape)),
        "out_weight": (out_weight, (channels, wide)),
        "out_bias": (out_bias, (channels,)),
    }
    if any(value is not None for value, _ in results.values()):
        expected |= results
    _parameters(
        "tokens", tokens, expected, f"tokens of {channels} channels and latents {shape_of(latent_ref)}"
    )
