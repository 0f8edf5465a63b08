"""Refinement of tokens by their local neighbourhood, with affine grouping."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import gather_points, group_max, neighbor_max, neighbor_sum
from .affine_grouping import AffineGrouping, ProjectedGroups, map_groups
from .initial import init_linear
from .plain import is_plain
from .pointwise import ChannelBatchNorm, PointwiseResidual, refuse_channels_second
from .residual import LayerScale


def pool_normalised(groups: ProjectedGroups, norm: ChannelBatchNorm) -> Tensor:
    """Compute ``group_max(norm(groups.grouped))`` without materialising ``grouped``.

    In each channel, a batch norm is an increasing or a decreasing linear function, so the maximum of its outputs comes
    from the maximum or the minimum of a group, and the anchor's summand shifts its whole group equally. Mean and
    variance over the (B, S, K) rows follow from sums over points and anchors. With 8 clouds of 1,024 points, 64
    channels and 24 neighbours, forward and backward on one core, including the linear map, take a tenth of the time of
    the plain form, and the backward pass keeps 25 MiB instead of 251 (``benchmarks/grouping.py``).

    Args:
        groups: from :meth:`AffineGrouping.project`.
        norm: batch norm of the W channels. In training, its running statistics are updated with all rows.

    Returns:
        ``(B, S, W)``, in the dtype of the summands. Statistics and norm are computed in float32 or wider.
    """
    point, anchor, index = groups.per_point, groups.per_anchor, groups.neighbor_index
    wide = torch.promote_types(point.dtype, torch.float32)
    scale, shift = norm.line(lambda: _moments(groups, wide))
    direction = torch.where(scale.detach() < 0, -1, 1).to(point.dtype)
    extreme = neighbor_max(point * direction, index) * direction
    return (scale * (extreme.to(wide) + anchor.to(wide)) + shift).to(point.dtype)


def _moments(groups: ProjectedGroups, dtype: torch.dtype) -> tuple[Tensor, Tensor, int]:
    """Return mean and biased variance ``(W,)`` of the rows of ``groups.grouped``, and the number of rows."""
    point, anchor = groups.per_point.to(dtype), groups.per_anchor.to(dtype)
    k, degree = groups.neighbor_index.shape[2], groups.degree.unsqueeze(2)
    rows = groups.neighbor_index.numel()
    count = max(rows, 1)  # for an empty batch, both moments and their gradients are 0
    point_mean = (degree * point).sum(dim=(0, 1)) / count
    anchor_mean = anchor.sum(dim=(0, 1)) / max(anchor.shape[0] * anchor.shape[1], 1)
    # centred to avoid cancellation; detached, since the mean has no effect on the variance
    point, anchor = point - point_mean.detach(), anchor - anchor_mean.detach()
    squares = (degree * point.square()).sum(dim=(0, 1)) + k * anchor.square().sum(dim=(0, 1))
    mixed = (anchor * neighbor_sum(point, groups.neighbor_index)).sum(dim=(0, 1))
    return point_mean + anchor_mean, ((squares + 2 * mixed) / count).clamp(min=0), rows


class GroupRefinement(nn.Module):
    """Refine tokens by their local neighbourhood: the "+ grouping" and "+ hierarchy" of BiXT.

    The tokens are normalised and mapped to a narrow ``width``, grouped (:class:`AffineGrouping`), passed through
    residual blocks for each neighbour, max-pooled over the group, passed through residual blocks for each anchor,
    mapped to ``out_dim`` and added to the anchors' tokens. If the refinement reduces or widens tokens, the anchors'
    tokens are first selected or mapped.

    Args:
        in_dim, out_dim: token width before and after.
        num_neighbors, reduction, normalize, use_xyz: see :class:`AffineGrouping`.
        width: channels inside the groups.
        blocks_before, blocks_after: residual blocks before and after the max-pooling.
        layer_scale: initial value of the learnt factor on the refinement. None for no factor.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 3.2 and C.1 (which module, k and where); Ma et
    al., PointMLP (ICLR 2022), section 3.2. How the features of a group enter the tokens is not published. The
    residual form is this toolkit's choice.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        num_neighbors: int = 24,
        reduction: int = 1,
        width: int = 64,
        blocks_before: int = 0,
        blocks_after: int = 1,
        normalize: str = "anchor",
        use_xyz: bool = True,
        layer_scale: float | None = None,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(in_dim, eps=1e-6)
        self.narrow = nn.Linear(in_dim, width)
        self.grouping = AffineGrouping(
            width, num_neighbors=num_neighbors, reduction=reduction, normalize=normalize, use_xyz=use_xyz
        )
        self.transfer = nn.Linear(self.grouping.out_channels, width, bias=False)
        self.transfer_norm = ChannelBatchNorm(width)
        self.act = nn.ReLU()
        self.before = nn.Sequential(*(PointwiseResidual(width) for _ in range(blocks_before)))
        self.after = nn.Sequential(*(PointwiseResidual(width) for _ in range(blocks_after)))
        self.widen = nn.Linear(width, out_dim)
        self.scale = nn.Identity() if layer_scale is None else LayerScale(out_dim, layer_scale)
        self.skip = nn.Identity() if in_dim == out_dim else nn.Linear(in_dim, out_dim)
        self.apply(init_linear)

    @property
    def reduction(self) -> int:
        """Factor by which the number of tokens is reduced: N tokens become ``N // reduction``."""
        return self.grouping.reduction

    @property
    def num_neighbors(self) -> int:
        """Number of neighbours K, which is also the minimum number of tokens."""
        return self.grouping.num_neighbors

    def forward(
        self, tokens: Tensor, centers: Tensor, neighbor_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Refine ``(B, N, in_dim)`` tokens at ``(B, N, 3)`` centers.

        Args:
            tokens: ``(B, N, in_dim)``.
            centers: xyz of the tokens, ``(B, N, 3)``.
            neighbor_index: neighbours that an earlier refinement returned for the same centers, to avoid searching
                again. Ignored if it has another number of neighbours.

        Returns:
            ``(B, S, out_dim)`` tokens, their ``(B, S, 3)`` centers, and the neighbours for the next layer, or None if
            the centers were reduced.

        Raises:
            TypeError: the batch norm was converted to torch's SyncBatchNorm.
        """
        if neighbor_index is not None and neighbor_index.shape[-1] != self.num_neighbors:
            neighbor_index = None
        refuse_channels_second(self.transfer_norm)
        features = self.narrow(self.norm(tokens))
        groups = map_groups(self.grouping, centers, features, self.transfer, neighbor_index)
        kinds = {self.transfer_norm: ChannelBatchNorm, self.act: nn.ReLU, self.before: nn.Sequential}
        if isinstance(groups, ProjectedGroups) and is_plain(kinds) and not len(self.before):
            pooled = self.act(pool_normalised(groups, self.transfer_norm))
        else:
            pooled = group_max(self.before(self.act(self.transfer_norm(groups.grouped))))
        next_neighbors: Tensor | None = groups.neighbor_index
        if groups.anchor_index is not None:
            tokens, next_neighbors = gather_points(tokens, groups.anchor_index), None
        tokens = self.skip(tokens) + self.scale(self.widen(self.after(pooled)))
        return tokens, groups.centers, next_neighbors
