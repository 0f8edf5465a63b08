"""Bi-directional attention between latents and tokens that are normalised and mapped on the way."""

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
    """Let latents attend to a stream of tokens, from its norm to its update.

    References and values of the tokens are ``norm(tokens) weightᵀ + bias``, cut into heads; then
    :func:`bixt3d.ops.bidirectional_attention`; then ``update = what the tokens get out_weightᵀ + out_bias``.

    The backend "cpu" does so for a tile of tokens at a time, in float32 and without gradient: nothing but the tokens
    and their update goes through memory.

    Args:
        latent_ref, latent_val: (B, H, M, D) float16, bfloat16, float32 or float64; or (1, H, M, D), shared by all
            clouds. Without latent values the latents alone attend, as in :func:`bixt3d.ops.latent_attention`.
        tokens: (B, N, C).
        norm_weight, norm_bias: (C,), of the layer normalisation.
        weight, bias: (2 H D, C) and (2 H D,), as :class:`torch.nn.Linear` holds them: references, then values.
        out_weight, out_bias: (C, H D) and (C,); None without latent values.
        scale: factor of the similarity, 1/sqrt(D) by default.
        eps: what the normalisation adds to the variance.
        backend: a name that ``available_backends("stream_attention")`` lists; None takes the first that runs.

    Returns:
        latents (B, H, M, D); the update (B, N, C), not yet added, or None without latent values; and the log-sums
        (B, H, M) of :func:`bixt3d.ops.bidirectional_attention`.

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
