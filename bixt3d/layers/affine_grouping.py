"""Affine grouping, as in PointMLP."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import farthest_point_sample, gather_points, group_points, knn, neighbor_sum
from .plain import is_plain

STD_EPS = 1e-5


class Groups(NamedTuple):
    """Local groups of a cloud.

    Attributes:
        centers: ``(B, S, 3)`` xyz of the anchors.
        anchor_index: ``(B, S)`` int64, or None if every point is an anchor, in order.
        neighbor_index: ``(B, S, K)`` int64.
        grouped: ``(B, S, K, 2C [+ 3])`` normalised residuals, followed by the anchor's raw features.
    """

    centers: Tensor
    anchor_index: Tensor | None
    neighbor_index: Tensor
    grouped: Tensor


class ProjectedGroups(NamedTuple):
    """A linear map of local groups, stored as two summands: ``per_point[neighbour] + per_anchor[anchor]``.

    Attributes:
        centers, anchor_index, neighbor_index: see :class:`Groups`.
        per_point: ``(B, N, W)``, the summand of each point, in every group that contains it.
        per_anchor: ``(B, S, W)``, the summand of each anchor, for all neighbours of its group.
        degree: ``(B, N)`` float32, the number of groups that contain each point.
    """

    centers: Tensor
    anchor_index: Tensor | None
    neighbor_index: Tensor
    per_point: Tensor
    per_anchor: Tensor
    degree: Tensor

    @property
    def grouped(self) -> Tensor:
        """The linear map of every neighbour, ``(B, S, K, W)``. Computed on each access."""
        return group_points(self.per_point, self.neighbor_index) + self.per_anchor.unsqueeze(2)


class AffineGrouping(nn.Module):
    """Group features around anchors, normalise the residuals and scale them by a learnt affine map.

    With ``f[j]`` the features of neighbour ``j`` (xyz appended with ``use_xyz``)::

        residual[s, j] = f[j] - (mean over the group, or f of the anchor s)
        normalised     = residual / (std over all residuals of the sample + 1e-5)
        grouped[s, j]  = concat(alpha * normalised + beta, raw features of the anchor s)

    The standard deviation is one unbiased scalar per sample. Anchors are farthest points, starting at
    point 0. With ``reduction=1`` every point is an anchor. Each anchor is one of its own neighbours.

    Args:
        channels: feature channels C.
        num_neighbors: K, at most the number of points.
        reduction: the number of anchors is ``N // reduction``.
        normalize: what to subtract for the residual, ``"anchor"`` or ``"center"`` (the mean of the group).
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
        """Return centers, anchor and neighbour index, values, the anchors' values and the anchors' raw features."""
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
            neighbor_index: ``(B, N, K)`` from an earlier call on the same points, to avoid searching again. Only used
                with ``reduction=1``.
        """
        centers, anchor_index, neighbor_index, values, origin, raw = self._locate(
            points, features, neighbor_index
        )
        residual = group_points(values, neighbor_index)
        center = residual.mean(dim=2) if self.normalize == "center" else origin
        residual = residual - center.unsqueeze(2)
        # a sum of squares over millions of residuals needs float32, even under autocast
        wide = torch.promote_types(residual.dtype, torch.float32)
        std = residual.to(wide).flatten(1).std(dim=1).to(residual.dtype).view(-1, 1, 1, 1)
        normalised = residual / (std + STD_EPS) * self.alpha + self.beta
        raw = raw.unsqueeze(2).expand(-1, -1, self.num_neighbors, -1)
        return Groups(centers, anchor_index, neighbor_index, torch.cat((normalised, raw), dim=-1))

    def project(
        self, points: Tensor, features: Tensor, linear: nn.Linear, neighbor_index: Tensor | None = None
    ) -> ProjectedGroups:
        """Compute ``linear(self(...).grouped)`` without materialising the groups.

        A linear map of a residual is the difference of two linear maps. It is therefore applied once per point, not
        once per neighbour of each group, and nothing of size ``(B, S, K, ...)`` is computed until the result's
        ``grouped`` is accessed. The standard deviation is likewise computed from sums over neighbours. Cancellation is
        harmless there, because the values are centred first and summed in float32.

        Args:
            points, features, neighbor_index: as in :meth:`forward`.
            linear: map from ``out_channels`` to any width W.

        Returns:
            Groups whose ``grouped`` is ``(B, S, K, W)``.
        """
        centers, anchor_index, neighbor_index, values, origin, raw = self._locate(
            points, features, neighbor_index
        )
        k, channels = self.num_neighbors, values.shape[-1]
        degree = _degree(neighbor_index, values.shape[1])
        shift = values.mean(dim=1, keepdim=True)
        wide = torch.promote_types(values.dtype, torch.float32)
        v, o = (values - shift).to(wide), (origin - shift).to(wide)
        sums = neighbor_sum(v, neighbor_index)
        center = sums / k if self.normalize == "center" else o
        # sum and sum of squares of v[j] - center[s] over all S*K*C residuals of a sample
        squares = (degree * v.square().sum(dim=-1)).sum(dim=1)
        squares = squares + (center * (k * center - 2 * sums)).sum(dim=(1, 2))
        total = (sums - k * center).sum(dim=(1, 2))
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
        return ProjectedGroups(centers, anchor_index, neighbor_index, per_point, per_anchor, degree)


def map_groups(
    grouping: nn.Module,
    points: Tensor,
    features: Tensor,
    linear: nn.Module,
    neighbor_index: Tensor | None = None,
) -> Groups | ProjectedGroups:
    """Compute ``linear(grouping(...).grouped)``, with :meth:`AffineGrouping.project` if both modules are plain.

    Otherwise both modules are called, so that adapters, quantisation, pruning and hooks take effect.

    Args:
        grouping: an :class:`AffineGrouping` or its replacement.
        points, features, neighbor_index: as in :meth:`AffineGrouping.forward`.
        linear: map of the last axis to any width W.

    Returns:
        Groups whose ``grouped`` is ``(B, S, K, W)``. :class:`ProjectedGroups` compute it only on access.
    """
    if (
        isinstance(grouping, AffineGrouping)
        and isinstance(linear, nn.Linear)
        and is_plain({grouping: AffineGrouping, linear: nn.Linear})
    ):
        return grouping.project(points, features, linear, neighbor_index)
    groups: Groups = grouping(points, features, neighbor_index)
    return groups._replace(grouped=linear(groups.grouped))


def _degree(neighbor_index: Tensor, num_points: int) -> Tensor:
    """Count the groups that contain each of N points: ``(B, S, K)`` -> ``(B, N)`` float32, whole numbers."""
    places = neighbor_index.flatten(1)
    ones = torch.ones(places.shape, device=places.device)
    return ones.new_zeros(places.shape[0], num_points).scatter_add(1, places, ones)
