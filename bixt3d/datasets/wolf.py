"""PointWOLF: deform each cloud with a few smoothly blended local transforms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bixt3d.datasets.rotation import rotation_matrices
from bixt3d.datasets.transform_base import Drawn, Transform, pick


@dataclass(frozen=True)
class PointWOLF(Transform):
    """Rotate, scale and translate the neighbourhoods of anchor points, each with its own random transform.

    The anchors ``a_m`` are drawn by farthest point sampling from a random start. Each has a local transform
    ``p_m = R_m S_m (p - a_m) + a_m + t_m``. A point moves to the weighted mean ``sum_m w_m p_m / sum_m w_m`` with
    weights ``w_m = exp(-|P_m (p - a_m)|^2 / (2 bandwidth^2))``, where ``P_m`` projects onto one, two or three random
    axes. The result is translated and scaled back to the mean and the largest radius of the input. Clouds should be
    in the unit sphere. AugTune, the paper's search for the strength of the augmentation, is not included.

    Args:
        anchors: number of local transforms.
        bandwidth: width of the Gaussian weights, in the unit of the points.
        max_degrees: largest angle about each axis, drawn uniformly from [-max_degrees, max_degrees].
        max_scale: largest factor along each axis, drawn uniformly from [1, max_scale].
        max_shift: largest shift along each axis, drawn uniformly from [-max_shift, max_shift].

    Raises:
        ValueError: a number is out of range. When called: the clouds have normals, which the deformation does not
            update, or fewer points than anchors.

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
                "points: expected xyz alone, since PointWOLF does not update normals; use data.normals=false."
            )
        if points.shape[1] < self.anchors:
            raise ValueError(
                f"points: expected at least {self.anchors}, the number of anchors, got {points.shape[1]}."
            )
        # half precision is too coarse for sums over a cloud
        xyz = points.to(torch.promote_types(points.dtype, torch.float32))

        def uniform(*shape: int) -> Tensor:
            return torch.rand((len(xyz), *shape), generator=generator, dtype=xyz.dtype, device=xyz.device)

        centers = self._centers(xyz, uniform(1))[:, :, None]  # (B, M, 1, 3)
        m = self.anchors
        turn = self._rotations(uniform(m, 3))
        stretch = 1 + (self.max_scale - 1) * uniform(m, 1, 3)
        shift = self.max_shift * (2 * uniform(m, 1, 3) - 1)
        axes = 1 + (7 * uniform(m, 1, 1)).long().clamp(max=6)  # 1 to 7, whose bits select the axes
        kept = axes.bitwise_right_shift(torch.arange(3, device=xyz.device)).bitwise_and(1)

        offset = xyz[:, None] - centers  # (B, M, N, 3)
        moved = (offset * stretch) @ turn.transpose(-1, -2) + centers + shift
        distance = (offset * kept).square().sum(dim=-1, keepdim=True)
        # softmax gives the same normalised weights, and is safe if all of them underflow
        weight = (-distance / (2 * self.bandwidth**2)).softmax(dim=1)
        return _as_before((weight * moved).sum(dim=1), xyz).to(points.dtype), part_labels

    def _centers(self, xyz: Tensor, unit: Tensor) -> Tensor:
        """Return anchors by farthest point sampling, ``(B, anchors, 3)``."""
        index = (unit * xyz.shape[1]).long().clamp(max=xyz.shape[1] - 1)  # (B, 1)
        nearest = torch.full_like(xyz[..., 0], math.inf)
        picked = [pick(xyz, index)]
        for _ in range(self.anchors - 1):
            nearest = torch.minimum(nearest, (xyz - picked[-1]).square().sum(dim=-1))
            picked.append(pick(xyz, nearest.argmax(dim=1, keepdim=True)))
        return torch.cat(picked, dim=1)

    def _rotations(self, unit: Tensor) -> Tensor:
        """Return rotations ``(B, M, 3, 3)`` about x, then y, then z, from numbers ``(B, M, 3)`` in [0, 1)."""
        half = (math.radians(self.max_degrees) * (2 * unit - 1) / 2)[..., None]
        axes = torch.eye(3, dtype=unit.dtype, device=unit.device)
        x, y, z = rotation_matrices(torch.cat([half.cos(), half.sin() * axes], dim=-1)).unbind(dim=2)
        return z @ (y @ x)


def _as_before(xyz: Tensor, before: Tensor) -> Tensor:
    """Translate and scale the clouds ``xyz`` to the mean and the largest radius of ``before``."""
    mean, mean_before = xyz.mean(dim=1, keepdim=True), before.mean(dim=1, keepdim=True)
    radius, radius_before = (
        (v - v.mean(dim=1, keepdim=True)).norm(dim=-1).amax(dim=1)[:, None, None] for v in (xyz, before)
    )
    factor = radius_before / torch.where(radius > 0, radius, torch.ones_like(radius))
    return (xyz - mean) * factor + mean_before
