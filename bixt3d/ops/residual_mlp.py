"""The residual MLP of a transformer."""

from torch import Tensor

from . import layer_checks
from .dispatch import run


def residual_mlp(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    update: Tensor | None = None,
    scale: Tensor | None = None,
    eps: float = 1e-6,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return ``y + scale (weight2 gelu(weight1 norm(y) + bias1) + bias2)`` with ``y = x + update``, row by row.

    ``norm`` is layer normalisation with its own weight and bias, ``gelu`` the exact one, ``x Φ(x)``.

    The backend "cpu" computes in float32 without ever writing a whole hidden layer; its gradient computes that again,
    adds up those of the parameters over as many ranges of rows as there are threads, and has no gradient itself.

    Args:
        x: (..., C) float16, bfloat16, float32 or float64.
        norm_weight, norm_bias: (C,), of the normalisation.
        weight1, bias1: (C', C) and (C',), as :class:`torch.nn.Linear` holds them.
        weight2, bias2: (C, C') and (C,).
        update: (..., C) as ``x``, what the branch before this one adds to it; None for nothing.
        scale: (B,), B the first size of ``x``: what the branch of each sample is multiplied by, as stochastic depth
            does. No gradient flows to it, and where it is zero nothing need be computed. None for 1.
        eps: what the normalisation adds to the variance.
        out: where to write, without gradient: contiguous, of the shape and dtype of ``x``, which it may be. None for
            new memory.
        backend: a name that ``available_backends("residual_mlp")`` lists; None takes the first that runs.

    Returns:
        (..., C), in the dtype of ``x``, or the wider one of the residual where autocast narrows the products.

    Raises:
        ValueError: wrong shape, different devices, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Vaswani et al. 2017, section 3.3, with the norm first and the GELU of Hendrycks and Gimpel 2016.
    """
    parameters = (norm_weight, norm_bias, weight1, bias1, weight2, bias2)
    layer_checks.mlp(x, parameters, update, scale, out)
    return run("residual_mlp", backend, x, *parameters, update, scale, eps, out)
