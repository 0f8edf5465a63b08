"""Register a backend's functions on features as custom ops with gradients of any order.

A backend provides four functions: ``gather(features, index)``, its transpose
``scatter_sum(rows, index, num_points)``, ``interpolate(features, index, weights)`` and its transpose
``spread(rows, index, weights, num_points)``. The gradient of each is its transpose.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Tensor | None, ...]


def register(
    prefix: str,
    gather: Callable[[Tensor, Tensor], Tensor],
    scatter_sum: Callable[[Tensor, Tensor, int], Tensor],
    interpolate: Callable[[Tensor, Tensor, Tensor], Tensor],
    spread: Callable[[Tensor, Tensor, Tensor, int], Tensor],
    *,
    row_products: Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor] | None = None,
) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]:
    """Register four functions as custom ops ``bixt3d::<prefix>_gather`` and so on.

    Args:
        prefix: prefix of the names of the custom ops.
        gather, scatter_sum, interpolate, spread: the functions.
        row_products: gradient of the weights, ``(rows (B, M, C), features (B, N, C), index (B, M, 3), dtype)`` to
            (B, M, 3) of this dtype: the dot product of each row with its three indexed features. Has to be
            differentiable itself. None uses torch operations on gathered rows, which is fast enough, since weights
            need a gradient only if the points do.

    Returns:
        The functions for the ops ``gather_points``, ``group_points`` and ``three_interpolate``.
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
        # Only the gradient of the weights needs the values.
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

    def empty_rows(features: Tensor, index: Tensor, *weights: Tensor) -> Tensor:
        return features.new_empty(features.shape[0], index.shape[1], features.shape[2])

    def empty_points(rows: Tensor, index: Tensor, *others: Any) -> Tensor:
        return rows.new_empty(rows.shape[0], others[-1], rows.shape[2])

    def make(name: str, run: Any, fake: Any, backward: Any, keep: Any) -> Any:
        made = torch.library.custom_op(f"bixt3d::{prefix}_{name}", run, mutates_args=())
        made.register_fake(fake)
        made.register_autograd(backward, setup_context=keep)
        return made

    gather = make("gather", gather, empty_rows, gather_backward, keep_gather)
    make("scatter_sum", scatter_sum, empty_points, scatter_backward, keep_scatter)
    interpolate = make("interpolate", interpolate, empty_rows, interpolate_backward, keep_weighted)
    make("spread", spread, empty_points, spread_backward, keep_weighted)

    def group_points(features: Tensor, index: Tensor) -> Tensor:
        return gather(features, index.flatten(1)).view(*index.shape, features.shape[2])

    return gather, group_points, interpolate
