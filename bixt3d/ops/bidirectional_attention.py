"""Bi-directional cross-attention between latents and tokens."""

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from . import checks
from .backends import attention
from .dispatch import run


def bidirectional_attention(
    latent_ref: Tensor,
    latent_val: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    training: bool = False,
    return_logsumexp: bool = False,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Let latents attend to tokens and tokens to latents with one shared similarity matrix.

    For every cloud and head, with ``S = scale * latent_ref token_refᵀ`` of shape (M, N):
    ``latents = softmax over tokens(S) token_val`` and ``tokens = softmax over latents(Sᵀ) latent_val``.

    - "cpu" and "triton" compute S tile by tile in one pass over the tokens. They support neither dropout nor second
      derivatives.
    - "sdpa" calls torch's fused attention once per direction. If torch has a fused kernel for the shapes and dtypes,
      nothing of size M × N is kept for the backward pass. There are no second derivatives.
    - "reference" computes S once, keeps both attention maps and has derivatives of any order.

    Args:
        latent_ref: (B, H, M, D) float16, bfloat16, float32 or float64; or (1, H, M, D), shared by all clouds.
        latent_val: (B, H, M, D') or (1, H, M, D'), with the batch size of ``latent_ref``.
        token_ref: (B, H, N, D).
        token_val: (B, H, N, D'').
        scale: factor of the similarity, 1/sqrt(D) by default.
        dropout_p: probability, below 1, of dropping an attention weight, drawn independently in each direction.
        training: whether dropout applies.
        return_logsumexp: also return the log-sums that :func:`join_latents` needs to join results over parts of the
            tokens. "sdpa" computes the similarities once more for them.
        backend: one of ``available_backends("bidirectional_attention")``; None picks the first that can run.

    Returns:
        latents (B, H, M, D'') and tokens (B, H, N, D'), in the dtype of the values, differentiable in all four
        inputs. All inputs share one dtype unless autocast is on. The softmax is computed in float32 or wider.
        With ``return_logsumexp`` also log(sum over tokens(exp(S))), (B, H, M), float32 (float64 for float64
        inputs), without gradient.

    Raises:
        ValueError: wrong shape or value, different devices, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Hiller, Ehinger and Drummond, "Perceiving Longer Sequences With Bi-Directional Cross-Attention
    Transformers", 2024 (arXiv 2402.12138), section 2.2.
    """
    checks.references(latent_ref, token_ref)
    checks.values("latent", latent_ref, latent_val)
    checks.values("token", token_ref, token_val)
    checks.dropout(dropout_p)
    inputs = (latent_ref, latent_val, token_ref, token_val)
    latents, tokens, logsumexp = run(
        "bidirectional_attention",
        backend,
        *inputs,
        scale=latent_ref.shape[-1] ** -0.5 if scale is None else scale,
        dropout_p=dropout_p if training else 0.0,
        return_logsumexp=return_logsumexp,
    )
    return (latents, tokens, logsumexp) if return_logsumexp else (latents, tokens)


@overload
def latent_attention(
    latent_ref: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    *,
    scale: float | None = ...,
    dropout_p: float = ...,
    training: bool = ...,
    return_logsumexp: Literal[False] = ...,
    backend: str | None = ...,
) -> Tensor:
    """Return the updated latents."""


@overload
def latent_attention(
    latent_ref: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    *,
    scale: float | None = ...,
    dropout_p: float = ...,
    training: bool = ...,
    return_logsumexp: Literal[True],
    backend: str | None = ...,
) -> tuple[Tensor, Tensor]:
    """Return the updated latents and their log-sums."""


def latent_attention(
    latent_ref: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    training: bool = False,
    return_logsumexp: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Let latents attend to tokens: the one-sided form of :func:`bidirectional_attention`.

    ``latents = softmax over tokens(scale * latent_ref token_refᵀ) token_val`` for every cloud and head. This is
    cross-attention with the latents as queries.

    Args:
        latent_ref: (B, H, M, D) float16, bfloat16, float32 or float64; or (1, H, M, D), shared by all clouds.
        token_ref: (B, H, N, D).
        token_val: (B, H, N, D').
        scale: factor of the similarity, 1/sqrt(D) by default.
        dropout_p: probability, below 1, of dropping an attention weight.
        training: whether dropout applies.
        return_logsumexp: as in :func:`bidirectional_attention`.
        backend: one of ``available_backends("latent_attention")``; None picks the first that can run.

    Returns:
        (B, H, M, D'), in the dtype of the values, differentiable in all three inputs. The softmax is computed in
        float32 or wider. With ``return_logsumexp`` also the log-sums, as :func:`bidirectional_attention` returns them.

    Raises:
        ValueError: wrong shape or value, different devices, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: as :func:`bidirectional_attention`, section 2.3; Vaswani et al. 2017, section 3.2.
    """
    checks.references(latent_ref, token_ref)
    checks.values("token", token_ref, token_val)
    checks.dropout(dropout_p)
    inputs = (latent_ref, token_ref, token_val)
    latents, logsumexp = run(
        "latent_attention",
        backend,
        *inputs,
        scale=latent_ref.shape[-1] ** -0.5 if scale is None else scale,
        dropout_p=dropout_p if training else 0.0,
        return_logsumexp=return_logsumexp,
    )
    return (latents, logsumexp) if return_logsumexp else latents


def join_latents(parts: Sequence[Tensor], logsumexps: Sequence[Tensor]) -> Tensor:
    """Combine latents that attended to parts of the tokens into the exact result over all tokens.

    With weights ``w = softmax over parts(logsumexp)``: ``latents = sum over parts(w * part)``. The log-sums carry no
    gradient, so this is not for training.

    Args:
        parts: latents (B, H, M, D) from :func:`bidirectional_attention` or :func:`latent_attention`, one per part.
        logsumexps: their log-sums (B, H, M).

    Returns:
        (B, H, M, D), in the dtype of the parts, computed in float32 or wider.

    Raises:
        ValueError: there is no part, or the two lists differ in length.

    Source: Rabe and Staats, "Self-attention Does Not Need O(n²) Memory", 2021, section 2.
    """
    if not parts or len(parts) != len(logsumexps):
        raise ValueError(
            f"parts: expected at least one, each with its logsumexp, got {len(parts)} and {len(logsumexps)}."
        )
    weights = torch.stack(list(logsumexps)).softmax(dim=0)
    return (torch.stack(list(parts)) * weights[..., None]).sum(dim=0).to(parts[0].dtype)


def attention_weights(
    latent_ref: Tensor, token_ref: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the two attention maps that :func:`bidirectional_attention` multiplies with the values.

    With ``S = scale * latent_ref token_refᵀ``: ``latents_from_tokens = softmax over tokens(S)`` and
    ``tokens_from_latents = softmax over latents(Sᵀ)``. The rows of both sum to one.

    Args:
        latent_ref: (B, H, M, D) float16, bfloat16, float32 or float64; or (1, H, M, D), shared by all clouds.
        token_ref: (B, H, N, D) of the same dtype.
        scale: factor of the similarity, 1/sqrt(D) by default.

    Returns:
        latents_from_tokens (B, H, M, N) and tokens_from_latents (B, H, N, M), float64 for float64 input and
        float32 otherwise, with derivatives of any order.

    Raises:
        ValueError: wrong shape or different devices.
        TypeError: wrong type or dtype.

    Source: as :func:`bidirectional_attention`.
    """
    checks.references(latent_ref, token_ref)
    if scale is None:
        scale = latent_ref.shape[-1] ** -0.5
    return attention.attention_weights(latent_ref, token_ref, scale)
