"""Gradients of the custom ops on features, of any order, which every backend that has them shares.

A backend registers four custom ops under a prefix of its own: ``gather(features, index)``, its transpose
``scatter_sum(rows, index, num_points)``, ``interpolate(features, index, weights)`` and its transpose
``spread(rows, index, weights, num_points)``. Each is the gradient of another one of them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]


def register(
    prefix: str, *, row_products: Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor] | None = None
) -> None:
    """Register the gradients of ``bixt3d::<prefix>_gather`` and the three others.

    Args:
        prefix: what the names of the four begin with.
        row_products: ``(rows (B, M, C), features (B, N, C), index (B, M, 3), dtype)`` to (B, M, 3) of this dtype,
            the product of each row with the three that the index names: the gradient of the weights.
            Differentiable itself. None for torch's operations on gathered rows, which do where the weights
            come from distances without a gradient.
    """

    def op(name: str) -> Any:
        return getattr(torch.ops.bixt3d, f"{prefix}_{name}")

    def products_of_gathered(rows: Tensor, features: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(torch.promote_types(rows.dtype, dtype), torch.float32)
        gathered = op("gather")(features, index.flatten(1)).view(*index.shape, features.shape[2])
        return (rows.unsqueeze(2).to(wide) * gathered.to(wide)).sum(dim=-1).to(dtype)

    row_products = row_products or products_of_gathered

    def keep_gather(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        features, index = inputs
        ctx.save_for_backward(index)
        ctx.num_points = features.shape[1]

    def gather_backward(ctx: Any, grad: Tensor) -> Gradients:
        (index,) = ctx.saved_tensors
        return op("scatter_sum")(grad, index, ctx.num_points), None

    def keep_scatter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    def scatter_backward(ctx: Any, grad: Tensor) -> Gradients:
        (index,) = ctx.saved_tensors
        return op("gather")(grad, index), None, None

    def keep_weighted(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, index, weights = inputs[:3]
        _, _, to_weights, *_ = ctx.needs_input_grad
        # The values are needed for the gradient of the weights alone.
        ctx.save_for_backward(values if to_weights else None, index, weights)
        ctx.num_points = values.shape[1]

    def interpolate_backward(ctx: Any, grad: Tensor) -> Gradients:
        features, index, weights = ctx.saved_tensors
        to_features, _, to_weights = ctx.needs_input_grad
        return (
            op("spread")(grad, index, weights, ctx.num_points) if to_features else None,
            None,
            row_products(grad, features, index, weights.dtype) if to_weights else None,
        )

    def spread_backward(ctx: Any, grad: Tensor) -> Gradients:
        rows, index, weights = ctx.saved_tensors
        to_rows, _, to_weights, _ = ctx.needs_input_grad
        return (
            op("interpolate")(grad, index, weights) if to_rows else None,
            None,
            row_products(rows, grad, index, weights.dtype) if to_weights else None,
            None,
        )

    for name, backward, keep in (
        ("gather", gather_backward, keep_gather),
        ("scatter_sum", scatter_backward, keep_scatter),
        ("interpolate", interpolate_backward, keep_weighted),
        ("spread", spread_backward, keep_weighted),
    ):
        torch.library.register_autograd(f"bixt3d::{prefix}_{name}", backward, setup_context=keep)
