"""PointMLP's decoder for part segmentation, for any encoder that returns its levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import FeaturePropagation, LinearNormAct
from .category import one_hot_category
from .outputs import Level


class PointMLPDecoder(nn.Module):
    """Propagate the levels of an encoder back to every point and predict part logits.

    Features are propagated from the coarsest level to each finer one (:class:`~bixt3d.layers.FeaturePropagation`). Two
    vectors are then concatenated to every point: a global context and the embedding of the category. For the context,
    every level is mapped to ``context_dim`` and max-pooled over its points, and the concatenated results are mapped
    once more. The head is linear, batch norm, dropout, linear, without an activation.

    Args:
        level_dims: channels of the encoder's levels, from finest (the points themselves) to coarsest.
        num_parts: total number of parts of all categories.
        num_categories: number of categories; None for a decoder without a category input.
        widths: channels after each propagation, from coarsest to finest; one fewer than there are levels.
        num_blocks: number of residual blocks in each propagation.
        context_dim: channels of the global context.
        category_dim: channels of the category embedding.
        head_dim: hidden channels of the head.
        dropout: dropout in the head.
        expansion, bias: settings of the residual blocks, see :class:`~bixt3d.layers.PointwiseResidual`.

    Raises:
        ValueError: the numbers of levels and widths do not match.

    Source: Ma et al., PointMLP (ICLR 2022), section 4.3, and its public code; Hiller et al., BiXT
    (arXiv 2402.12138), section 3.2, which uses it.
    """

    # per training batch, since the batch norms of the context see one vector per cloud
    min_batch_size = 2

    def __init__(
        self,
        *,
        level_dims: Sequence[int],
        num_parts: int,
        num_categories: int | None = None,
        widths: Sequence[int] = (512, 256, 128, 128),
        num_blocks: int = 4,
        context_dim: int = 64,
        category_dim: int = 64,
        head_dim: int = 128,
        dropout: float = 0.5,
        expansion: float = 1.0,
        bias: bool = True,
    ):
        super().__init__()
        if len(widths) != len(level_dims) - 1:
            raise ValueError(
                f"widths: expected {len(level_dims) - 1}, one for each of the {len(level_dims)} levels but the "
                f"coarsest, got {len(widths)}; give as many widths as the encoder has layers."
            )
        self.num_categories = num_categories
        coarsest_first = list(level_dims)[::-1]
        self.propagations = nn.ModuleList(
            FeaturePropagation(fine, coarse, out, num_blocks=num_blocks, expansion=expansion, bias=bias)
            for fine, coarse, out in zip(
                coarsest_first[1:], [coarsest_first[0], *widths], widths, strict=False
            )
        )
        self.level_context = nn.ModuleList(
            LinearNormAct(dim, context_dim, bias=bias) for dim in coarsest_first
        )
        self.context = LinearNormAct(context_dim * len(coarsest_first), context_dim, bias=bias)
        self.category = None
        if num_categories is not None:
            self.category = nn.Sequential(
                LinearNormAct(num_categories, category_dim, bias=bias),
                LinearNormAct(category_dim, category_dim, bias=bias),
            )
        joined = widths[-1] + context_dim + (0 if num_categories is None else category_dim)
        self.head = nn.Sequential(
            LinearNormAct(joined, head_dim, bias=True, act=False),
            nn.Dropout(dropout),
            nn.Linear(head_dim, num_parts),
        )

    def forward(self, levels: Sequence[Level], category: Tensor | None = None) -> Tensor:
        """Return part logits for every point of the finest level.

        Args:
            levels: tokens and centers of ``len(level_dims)`` levels, from finest to coarsest.
            category: ``(B,)`` int64; ignored if the decoder was built without ``num_categories``.

        Returns:
            ``(B, N, num_parts)`` logits.
        """
        coarsest_first = list(levels)[::-1]
        x, points = coarsest_first[0]
        for propagation, finer in zip(self.propagations, coarsest_first[1:], strict=True):
            x = propagation(finer.centers, points, finer.tokens, x)
            points = finer.centers
        pooled = [
            context(level.tokens).amax(dim=1)
            for context, level in zip(self.level_context, coarsest_first, strict=True)
        ]
        shared = [self.context(torch.cat(pooled, dim=-1))]
        if self.category is not None:
            assert self.num_categories is not None
            shared.append(self.category(one_hot_category(category, x, self.num_categories)))
        spread = [v.unsqueeze(1).expand(-1, x.shape[1], -1) for v in shared]
        return self.head(torch.cat((x, *spread), dim=-1))
