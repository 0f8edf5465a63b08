"""PointWOLF: bend each cloud by a few local transforms that fade into each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bixt3d.datasets.rotation import rotation_matrices
from bixt3d.datasets.transform_base import Drawn, Transform, pick


@dataclass(frozen=True)
class PointWOLF(Transform):
    """Turn, stretch and move the surroundings of some anchors, each by a transform of its own.

    Anchors ``a_m`` are farthest points of the cloud, from a random one on. Each has a local transform
    ``p_m = R_m S_m (p - a_m) + a_m + t_m``, and the point goes to the mean of them, ``sum_m w_m p_m / sum_m
    w_m``, weighted with ``w_m = exp(-|P_m (p - a_m)|^2 / (2 bandwidth^2))``, where ``P_m`` keeps one, two or
    three random axes. The result is moved and scaled back to the mean and the largest radius of the input.
    Clouds are expected in the unit sphere. The search for a strength by confidence (AugTune) is not part of
    it.

    Args:
        anchors: number of local transforms.
        bandwidth: how far a transform reaches.
        max_degrees: largest angle about each axis, drawn uniformly from [-max_degrees, max_degrees].
        max_scale: largest factor along each axis, drawn uniformly from [1, max_scale].
        max_shift: largest shift along each axis, drawn uniformly from [-max_shift, max_shift].

    Raises:
        ValueError: a number is out of range; when called, a cloud has normals, which would not follow, or
            fewer points than there are anchors.

    Source: Kim et al., "Point Cloud Augmentation with Weighted Local Transformations", ICCV 2021.
    """

    anchors: int = 4
    bandwidth: float = 0.5
    max_degrees: float = 10.0
    max_scale: float = 3.0
    max_shift: float = 0.25

    def __post_init__(self) -> None:
        if self.anchors < 1:
            raise ValueError(f"anchors: expected at least 1, got {self.anchors}.")
        for name, least in (("bandwidth", 0.01), ("max_degrees", 0), ("max_scale", 1), ("max_shift", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}.")

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        if points.shape[-1] != 3:
            raise ValueError(
                "points: PointWOLF bends surfaces, and normals would not follow; use data.normals=false."
            )
        if points.shape[1] < self.anchors:
            raise ValueError(f"points: expected at least {self.anchors}, the anchors, got {points.shape[1]}.")
        # in half precision sums over a cloud would be too coarse
        xyz = points.to(torch.promote_types(points.dtype, torch.float32))

        def uniform(*shape: int) -> Tensor:
            return torch.rand((len(xyz), *shape), generator=generator, dtype=xyz.dtype, device=xyz.device)

        centers = self._centers(xyz, uniform(1))[:, :, None]  # (B, M, 1, 3)
        m = self.anchors
        turn = self._rotations(uniform(m, 3))
        stretch = 1 + (self.max_scale - 1) * uniform(m, 1, 3)
        shift = self.max_shift * (2 * uniform(m, 1, 3) - 1)
        axes = 1 + (7 * uniform(m, 1, 1)).long().clamp(max=6)  # 1 to 7: the bits say which axes are kept
        kept = axes.bitwise_right_shift(torch.arange(3, device=xyz.device)).bitwise_and(1)

        offset = xyz[:, None] - centers  # (B, M, N, 3)
        moved = (offset * stretch) @ turn.transpose(-1, -2) + centers + shift
        distance = (offset * kept).square().sum(dim=-1, keepdim=True)
        # a softmax is the same quotient, and safe where all weights would vanish
        weight = (-distance / (2 * self.bandwidth**2)).softmax(dim=1)
        return _as_before((weight * moved).sum(dim=1), xyz).to(points.dtype), part_labels

    def _centers(self, xyz: Tensor, unit: Tensor) -> Tensor:
        """Pick farthest points of each cloud: ``(B, anchors, 3)``."""
        index = (unit * xyz.shape[1]).long().clamp(max=xyz.shape[1] - 1)  # (B, 1)
        nearest = torch.full_like(xyz[..., 0], math.inf)
        picked = [pick(xyz, index)]
        for _ in range(self.anchors - 1):
            nearest = torch.minimum(nearest, (xyz - picked[-1]).square().sum(dim=-1))
            picked.append(pick(xyz, nearest.argmax(dim=1, keepdim=True)))
        return torch.cat(picked, dim=1)

    def _rotations(self, unit: Tensor) -> Tensor:
        """Make rotations about x, then y, then z from numbers in [0, 1): ``(B, M, 3, 3)``."""
        half = (math.radians(self.max_degrees) * (2 * unit - 1) / 2)[..., None]
        axes = torch.eye(3, dtype=unit.dtype, device=unit.device)
        x, y, z = rotation_matrices(torch.cat([half.cos(), half.sin() * axes], dim=-1)).unbind(dim=2)
        return z @ (y @ x)


def _as_before(xyz: Tensor, before: Tensor) -> Tensor:
    """Give clouds the mean and the largest radius of others."""
    mean, mean_before = xyz.mean(dim=1, keepdim=True), before.mean(dim=1, keepdim=True)
    radius, radius_before = (
        (v - v.mean(dim=1, keepdim=True)).norm(dim=-1).amax(dim=1)[:, None, None] for v in (xyz, before)
    )
    factor = radius_before / torch.where(radius > 0, radius, torch.ones_like(radius))
    return (xyz - mean) * factor + mean_before
