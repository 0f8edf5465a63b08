"""Encode the category of a cloud as input of a part segmenter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.backends.tracing import in_transform


def one_hot_category(category: Tensor | None, points: Tensor, num_categories: int) -> Tensor:
    """Return the categories of a batch as one-hot rows ``(B, num_categories)``.

    Args:
        category: ``(B,)`` int64, 0 to ``num_categories - 1``. The range is checked only on the CPU, where this needs no
            synchronisation, and not under torch.func.
        points: ``(B, N, C)``, the batch of clouds, which determines the dtype of the result.
        num_categories: number of categories.

    Raises:
        ValueError: ``category`` is None, out of range, or not one per cloud.
        TypeError: ``category`` is not int64.
    """
    batch = points.shape[0]
    if category is None:
        raise ValueError(
            f"category: the model needs the category of each cloud, got None; give one of 0 to "
            f"{num_categories - 1} for each of the {batch} clouds."
        )
    if category.dtype != torch.int64:
        raise TypeError(f"category: expected dtype torch.int64, got {category.dtype}.")
    if category.shape != (batch,):
        raise ValueError(f"category: expected shape ({batch},), one per cloud, got {tuple(category.shape)}.")
    if in_transform():  # vmap cannot read values, as the check and one_hot do
        numbers = torch.arange(num_categories, device=category.device)
        return (category.unsqueeze(1) == numbers).to(points.dtype)
    if category.device.type == "cpu" and not torch.compiler.is_compiling():
        outside = category[(category < 0) | (category >= num_categories)]
        if len(outside):
            raise ValueError(
                f"category: got {int(outside[0])}, expected 0 to {num_categories - 1}, one of the "
                f"{num_categories} categories that the model was built for."
            )
    return F.one_hot(category, num_categories).to(points.dtype)
