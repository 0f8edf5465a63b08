"""Affine grouping of PointMLP, and the token refinement of BiXT that is built on it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import farthest_point_sample, gather_points, group_max, group_points, knn
from .pointwise import ChannelBatchNorm, PointwiseResidual
from .residual import LayerScale

STD_EPS = 1e-5


class Groups(NamedTuple):
    """Local groups of a cloud.

    Attributes:
        centers: ``(B, S, 3)`` xyz of the anchors.
        anchor_index: ``(B, S)`` int64, or None where every point is its own anchor, in order.
        neighbor_index: ``(B, S, K)`` int64.
        grouped: ``(B, S, K, 2C [+ 3])`` normalised residuals, then the anchor's raw features.
    """

    centers: Tensor
    anchor_index: Tensor | None
    neighbor_index: Tensor
    grouped: Tensor


class AffineGrouping(nn.Module):
    """Group features around anchors, normalise the residuals and scale them by a learnt affine map.

    With ``f[j]`` the features of neighbour ``j`` (xyz appended with ``use_xyz``)::

        residual[s, j] = f[j] - (mean over the group, or f of the anchor s)
        normalised     = residual / (std over all residuals of the sample + 1e-5)
        grouped[s, j]  = concat(alpha * normalised + beta, raw features of the anchor s)

    The standard deviation is one unbiased scalar per sample. Anchors are farthest points, starting at
    point 0; with ``reduction=1`` every point is an anchor. Each anchor's own point is among its neighbours.

    Args:
        channels: feature channels C.
        num_neighbors: K, at most the number of points.
        reduction: the number of anchors is ``N // reduction``.
        normalize: what a residual is taken from: ``"anchor"`` or ``"center"`` (the group's mean).
        use_xyz: append the neighbours' xyz to their features before normalising.

    Raises:
        ValueError: unknown ``normalize``, or fewer points than neighbours or than ``reduction``.

    Source: Ma et al., PointMLP (ICLR 2022), section 3.3, and its public code.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_neighbors: int = 24,
        reduction: int = 1,
        normalize: str = "anchor",
        use_xyz: bool = False,
    ):
        super().__init__()
        if normalize not in ("anchor", "center"):
            raise ValueError(f"normalize: expected 'anchor' or 'center', got {normalize!r}.")
        if num_neighbors < 1 or reduction < 1:
            raise ValueError(
                f"num_neighbors and reduction: expected at least 1, got {num_neighbors} and {reduction}."
            )
        self.num_neighbors = num_neighbors
        self.reduction = reduction
        self.normalize = normalize
        self.use_xyz = use_xyz
        self.out_channels = 2 * channels + 3 * use_xyz
        self.alpha = nn.Parameter(torch.ones(channels + 3 * use_xyz))
        self.beta = nn.Parameter(torch.zeros(channels + 3 * use_xyz))

    def _locate(
        self, points: Tensor, features: Tensor, neighbor_index: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor]:
        """Find anchors and neighbours; returns centers, both indices, values, the anchors' values and raw."""
        anchor_index = None
        centers, raw = points, features
        if self.reduction > 1:
            anchor_index = farthest_point_sample(points, points.shape[1] // self.reduction)
            centers = gather_points(points, anchor_index)
            raw = gather_points(features, anchor_index)
        if neighbor_index is None or anchor_index is not None:
            neighbor_index = knn(centers, points, self.num_neighbors)[1]
        values, origin = features, raw
        if self.use_xyz:
            values = torch.cat((features, points.to(features.dtype)), dim=-1)
            origin = torch.cat((raw, centers.to(features.dtype)), dim=-1)
        return centers, anchor_index, neighbor_index, values, origin, raw

    def forward(self, points: Tensor, features: Tensor, neighbor_index: Tensor | None = None) -> Groups:
        """Group ``(B, N, C)`` features of ``(B, N, 3)`` points.

        Args:
            points: xyz, ``(B, N, 3)``.
            features: ``(B, N, C)``, differentiable.
            neighbor_index: ``(B, N, K)`` from an earlier call on the same points with ``reduction=1``, to
                save finding the same neighbours again.
        """
        centers, anchor_index, neighbor_index, values, origin, raw = self._locate(
            points, features, neighbor_index
        )
        residual = group_points(values, neighbor_index)
        center = residual.mean(dim=2) if self.normalize == "center" else origin
        residual = residual - center.unsqueeze(2)
        # the sum of squares over millions of residuals needs float32 whatever the autocast
        wide = torch.promote_types(residual.dtype, torch.float32)
        std = residual.to(wide).flatten(1).std(dim=1).to(residual.dtype).view(-1, 1, 1, 1)
        normalised = residual / (std + STD_EPS) * self.alpha + self.beta
        raw = raw.unsqueeze(2).expand(-1, -1, self.num_neighbors, -1)
        return Groups(centers, anchor_index, neighbor_index, torch.cat((normalised, raw), dim=-1))

    def project(
        self, points: Tensor, features: Tensor, linear: nn.Linear, neighbor_index: Tensor | None = None
    ) -> Groups:
        """Group and apply a linear map: ``linear(self(...).grouped)`` without ever making ``grouped``.

        A linear map of a residual is the difference of two maps, so it runs once for each point instead of
        once for each of its K groups, and the only tensor of size ``(B, S, K, ...)`` that the backward pass
        keeps is the result. The standard deviation follows from sums over the neighbours in the same way;
        its cancellation is harmless because the values are centred first and summed in float32.

        With 8 clouds of 1,024 points, C = W = 64 and k = 24 the backward pass keeps 64 MiB instead of 250, in
        the same time (``benchmarks/grouping.py``, CPU): it is there for memory.

        Args:
            points, features, neighbor_index: as in the call itself.
            linear: map from ``out_channels`` to any width W.

        Returns:
            groups whose ``grouped`` is the projection, ``(B, S, K, W)``.
        """
        centers, anchor_index, neighbor_index, values, origin, raw = self._locate(
            points, features, neighbor_index
        )
        k, channels = self.num_neighbors, values.shape[-1]
        shift = values.mean(dim=1, keepdim=True)
        wide = torch.promote_types(values.dtype, torch.float32)
        v, o = (values - shift).to(wide), (origin - shift).to(wide)
        neighbor_sum = group_points(v, neighbor_index).sum(dim=2)
        center = neighbor_sum / k if self.normalize == "center" else o
        # sum and sum of squares of v[j] - center[s] over all S*K*C residuals of a sample
        squares = group_points(v.square().sum(dim=-1, keepdim=True), neighbor_index).sum(dim=(1, 2, 3))
        squares = squares + (center * (k * center - 2 * neighbor_sum)).sum(dim=(1, 2))
        total = (neighbor_sum - k * center).sum(dim=(1, 2))
        count = center.shape[1] * k * channels
        variance = (squares - total.square() / count) / (count - 1)
        inverse = 1 / (variance.clamp(min=0).add(1e-30).sqrt() + STD_EPS).view(-1, 1, 1)

        on_residual, on_raw = linear.weight.split((channels, raw.shape[-1]), dim=1)
        scaled = on_residual * self.alpha
        per_point = F.linear((v * inverse).to(features.dtype), scaled)
        per_anchor = (
            F.linear(raw, on_raw, linear.bias)
            - F.linear((center * inverse).to(features.dtype), scaled)
            + F.linear(self.beta, on_residual)
        )
        projected = group_points(per_point, neighbor_index) + per_anchor.unsqueeze(2)
        return Groups(centers, anchor_index, neighbor_index, projected)


class GroupRefinement(nn.Module):
    """Refine tokens by what lies around them: the "+ grouping" and "+ hierarchy" of BiXT.

    The tokens are normed and mapped to a narrow ``width``, grouped (:class:`AffineGrouping`), passed
    through residual blocks for each neighbour, max-pooled over the group, passed through residual blocks
    for each anchor, mapped to ``out_dim`` and added to the anchors' tokens. Where tokens are reduced or
    widened the anchors' tokens are picked and mapped first.

    Args:
        in_dim, out_dim: token width before and after.
        num_neighbors, reduction, normalize, use_xyz: see :class:`AffineGrouping`.
        width: channels inside the groups.
        blocks_before, blocks_after: residual blocks before and after the max-pooling.
        layer_scale: start of the learnt factor on the refinement; None for none.

    Source: Hiller et al., BiXT (arXiv 2402.12138), section 3.2 and C.1 (which module, k and where); Ma et
    al., PointMLP (ICLR 2022), section 3.2. How the features of a group enter the tokens is not published;
    the residual form here is this toolkit's choice.
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

    @property
    def reduction(self) -> int:
        """Tokens go in as N and come out as ``N // reduction``."""
        return self.grouping.reduction

    @property
    def num_neighbors(self) -> int:
        """Number of neighbours K, the least number of tokens that can be refined."""
        return self.grouping.num_neighbors

    def forward(
        self, tokens: Tensor, centers: Tensor, neighbor_index: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Refine ``(B, N, in_dim)`` tokens at ``(B, N, 3)`` centers.

        Args:
            tokens: ``(B, N, in_dim)``.
            centers: xyz of the tokens, ``(B, N, 3)``.
            neighbor_index: what the refinement of an earlier layer returned for the same centers.

        Returns:
            ``(B, S, out_dim)`` tokens, their ``(B, S, 3)`` centers, and the neighbours for the next
            layer, or None where reduction has changed the centers.
        """
        if neighbor_index is not None and neighbor_index.shape[-1] != self.num_neighbors:
            neighbor_index = None
        features = self.narrow(self.norm(tokens))
        groups = self.grouping.project(centers, features, self.transfer, neighbor_index)
        pooled = group_max(self.before(self.act(self.transfer_norm(groups.grouped))))
        next_neighbors: Tensor | None = groups.neighbor_index
        if groups.anchor_index is not None:
            tokens, next_neighbors = gather_points(tokens, groups.anchor_index), None
        tokens = self.skip(tokens) + self.scale(self.widen(self.after(pooled)))
        return tokens, groups.centers, next_neighbors
