"""Bi-directional attention fused with the layer norm and linear maps of the tokens."""

from torch import Tensor

from . import layer_checks
from .dispatch import run


def stream_attention(
    latent_ref: Tensor,
    latent_val: Tensor | None,
    tokens: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight: Tensor,
    bias: Tensor,
    out_weight: Tensor | None = None,
    out_bias: Tensor | None = None,
    *,
    scale: float | None = None,
    eps: float = 1e-6,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Normalise and map tokens, attend in both directions, and map the result to the tokens' update.

    References and values of the tokens are ``norm(tokens) weightᵀ + bias``, split into heads. After
    :func:`bixt3d.ops.bidirectional_attention`, ``update = attended out_weightᵀ + out_bias``, where ``attended`` is the
    attention output of the tokens with its heads merged.

    The backend "cpu" processes a tile of tokens at a time, in float32 and without gradient. Only the tokens and their
    update are read from and written to main memory.

    Args:
        latent_ref, latent_val: (B, H, M, D) float16, bfloat16, float32 or float64; or (1, H, M, D), shared by all
            clouds. If ``latent_val`` is None, only the latents attend, as in :func:`bixt3d.ops.latent_attention`.
        tokens: (B, N, C).
        norm_weight, norm_bias: (C,), parameters of the layer normalisation.
        weight, bias: (2 H D, C) and (2 H D,), as in :class:`torch.nn.Linear`: references, then values.
        out_weight, out_bias: (C, H D) and (C,); None without ``latent_val``.
        scale: factor of the similarity, 1/sqrt(D) by default.
        eps: added to the variance by the normalisation.
        backend: one of ``available_backends("stream_attention")``; None picks the first that can run.

    Returns:
        latents (B, H, M, D); the update (B, N, C), to be added by the caller, or None without ``latent_val``; and the
        log-sums (B, H, M) of :func:`bixt3d.ops.bidirectional_attention`.

    Raises:
        ValueError: wrong shape, different devices, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Hiller et al., BiXT (arXiv 2402.12138), sections 2.2 and 2.3.
    """
    inputs = (latent_ref, latent_val, tokens, norm_weight, norm_bias, weight, bias, out_weight, out_bias)
    layer_checks.stream(*inputs)
    scale = latent_ref.shape[-1] ** -0.5 if scale is None else scale
    return run("stream_attention", backend, *inputs, scale, eps)
