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
    """Apply a residual MLP to each row.

    ``y + scale (weight2 gelu(weight1 norm(y) + bias1) + bias2)`` with ``y = x + update``, where ``norm`` is layer
    normalisation with ``norm_weight`` and ``norm_bias``, and ``gelu`` is the exact form ``x Φ(x)``.

    The backend "cpu" computes in float32 and never stores the whole hidden layer. Its backward pass recomputes the
    hidden layer, sums the gradients of the parameters over as many ranges of rows as there are threads, and is not
    differentiable itself.

    Args:
        x: (..., C) float16, bfloat16, float32 or float64.
        norm_weight, norm_bias: (C,), parameters of the layer normalisation.
        weight1, bias1: (C', C) and (C',), as in :class:`torch.nn.Linear`.
        weight2, bias2: (C, C') and (C,).
        update: output of the preceding branch, of the shape of ``x``, added to ``x`` first. None for none.
        scale: (B,), where B is the first size of ``x``: factor of each sample's branch, for stochastic depth. It gets
            no gradient, and backends may skip samples where it is zero. None for 1.
        eps: added to the variance by the normalisation.
        out: contiguous tensor of the shape and dtype of ``x`` to write the result to, without gradient. May be ``x``
            itself. None allocates a new one.
        backend: one of ``available_backends("residual_mlp")``; None picks the first that can run.

    Returns:
        (..., C), in the dtype of ``x + update``, even where autocast narrows the matrix products.

    Raises:
        ValueError: wrong shape, different devices, unknown backend.
        TypeError: wrong type or dtype.
        NotImplementedError: the named backend cannot run on these inputs.

    Source: Vaswani et al. 2017, section 3.3, with the norm first and the GELU of Hendrycks and Gimpel 2016.
    """
    parameters = (norm_weight, norm_bias, weight1, bias1, weight2, bias2)
    layer_checks.mlp(x, parameters, update, scale, out)
    return run("residual_mlp", backend, x, *parameters, update, scale, eps, out)
