"""Backends of attention in torch: ``reference`` stores the attention maps, ``sdpa`` does not.

Every backend takes ``scale`` as a number and ``dropout_p`` as the probability to apply (0 in evaluation). Its last
result is the log-sums of the rows of S, or None without ``return_logsumexp``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import accumulation_dtype
from .tracing import in_forward_mode


def attention_weights(latent_ref: Tensor, token_ref: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Compute the similarities once and apply a softmax along either axis."""
    # Scaling before the product keeps float16 in range.
    similarity = torch.matmul(latent_ref * scale, token_ref.mT)
    dtype = accumulation_dtype(similarity.dtype)
    return similarity.softmax(dim=-1, dtype=dtype), similarity.mT.softmax(dim=-1, dtype=dtype)


def _logsumexp(latent_ref: Tensor, token_ref: Tensor, scale: float, wanted: bool) -> Tensor | None:
    """Return the log-sums over tokens (B, H, M), or None if not ``wanted``."""
    if not wanted:
        return None
    similarity = torch.matmul(latent_ref.detach() * scale, token_ref.detach().mT)
    return similarity.to(accumulation_dtype(similarity.dtype)).logsumexp(dim=-1)


def reference(
    latent_ref: Tensor,
    latent_val: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    scale: float,
    dropout_p: float,
    return_logsumexp: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Multiply each of the two attention maps with the values of the other side."""
    latents_from_tokens, tokens_from_latents = attention_weights(latent_ref, token_ref, scale)
    if dropout_p > 0:
        latents_from_tokens = F.dropout(latents_from_tokens, dropout_p)
        tokens_from_latents = F.dropout(tokens_from_latents, dropout_p)
    latents = torch.matmul(latents_from_tokens.to(token_val.dtype), token_val)
    tokens = torch.matmul(tokens_from_latents.to(latent_val.dtype), latent_val)
    return latents, tokens, _logsumexp(latent_ref, token_ref, scale, return_logsumexp)


def sdpa_why_not(*inputs: object, **options: object) -> str | None:
    """Return why torch's fused attention cannot run now, or None."""
    return "has no forward-mode derivative" if in_forward_mode() else None


def sdpa(
    latent_ref: Tensor,
    latent_val: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    scale: float,
    dropout_p: float,
    return_logsumexp: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Attend twice with torch's fused attention, once in each direction.

    Computing the similarities a second time costs less than writing them to memory and reading them back.
    """
    latents, logsumexp = sdpa_latents(latent_ref, token_ref, token_val, scale, dropout_p, return_logsumexp)
    latent_ref, latent_val = (x.expand(token_ref.shape[0], -1, -1, -1) for x in (latent_ref, latent_val))
    tokens, _ = sdpa_latents(token_ref, latent_ref, latent_val, scale, dropout_p, False)
    return latents, tokens, logsumexp


def reference_latents(
    latent_ref: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    scale: float,
    dropout_p: float,
    return_logsumexp: bool,
) -> tuple[Tensor, Tensor | None]:
    """Multiply the latents' attention map with the values of the tokens."""
    weights = attention_weights(latent_ref, token_ref, scale)[0]
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    latents = torch.matmul(weights.to(token_val.dtype), token_val)
    return latents, _logsumexp(latent_ref, token_ref, scale, return_logsumexp)


def sdpa_latents(
    latent_ref: Tensor,
    token_ref: Tensor,
    token_val: Tensor,
    scale: float,
    dropout_p: float,
    return_logsumexp: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attend one way with torch's fused attention."""
    latent_ref = latent_ref.expand(token_ref.shape[0], -1, -1, -1)
    latents = F.scaled_dot_product_attention(
        latent_ref, token_ref, token_val, dropout_p=dropout_p, scale=scale
    )
    return latents, _logsumexp(latent_ref, token_ref, scale, return_logsumexp)
