"""Propagate features from a coarse level of a hierarchy to the next finer one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import group_points, three_interpolate, three_nn
from .pointwise import LinearNormAct, PointwiseResidual

WEIGHT_EPS = 1e-8


class FeaturePropagation(nn.Module):
    """Interpolate coarse features at finer points, concatenate them with the fine features, and refine.

    With ``j`` over the three coarse points nearest to the fine point ``i``::

        weight[i, j] = (1 / (d[i, j]^2 + 1e-8)) / (sum over j of the same)
        out[i]       = blocks(fuse(concat(fine[i], sum over j of weight[i, j] * coarse[j])))

    where ``fuse`` is a linear map with batch norm and ReLU. If there are fewer than three coarse points, the last is
    repeated.

    Args:
        fine_dim, coarse_dim: channels of the two levels.
        out_dim: channels of the result.
        num_blocks: residual blocks after the fusion.
        expansion, bias: see :class:`PointwiseResidual`.

    Source: Qi et al., PointNet++ (2017), section 3.4; Ma et al., PointMLP (ICLR 2022), part segmentation.
    """

    def __init__(
        self,
        fine_dim: int,
        coarse_dim: int,
        out_dim: int,
        *,
        num_blocks: int = 4,
        expansion: float = 1.0,
        bias: bool = True,
    ):
        super().__init__()
        self.fuse = LinearNormAct(fine_dim + coarse_dim, out_dim, bias=bias)
        self.blocks = nn.Sequential(
            *(PointwiseResidual(out_dim, expansion=expansion, bias=bias) for _ in range(num_blocks))
        )

    def forward(self, fine_points: Tensor, coarse_points: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """Propagate ``(B, S, coarse_dim)`` features at ``(B, S, 3)`` xyz to ``(B, N, 3)`` finer xyz.

        Args:
            fine_points: ``(B, N, 3)``.
            coarse_points: ``(B, S, 3)``, S at least 1.
            fine: ``(B, N, fine_dim)``, features of the fine points.
            coarse: ``(B, S, coarse_dim)``.

        Returns:
            ``(B, N, out_dim)``, differentiable in both features and, through the weights, in the points of both levels.
        """
        _, index = three_nn(fine_points, coarse_points)
        wide = torch.promote_types(fine_points.dtype, torch.float32)
        # recomputed, since the distances from three_nn carry no gradient to the points
        apart = fine_points.to(wide).unsqueeze(2) - group_points(coarse_points, index)
        sq_dist = apart.square().sum(dim=-1)
        weights = 1 / (sq_dist + WEIGHT_EPS)
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(coarse.dtype)
        interpolated = three_interpolate(coarse, index, weights)
        return self.blocks(self.fuse(torch.cat((fine, interpolated), dim=-1)))
