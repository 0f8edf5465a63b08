"""Rotate point clouds and their normals at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bixt3d.datasets.transform_base import Drawn, Transform, check_range


@dataclass(frozen=True)
class RandomRotation(Transform):
    """Rotate each cloud and its normals about the origin.

    The angle is drawn uniformly from [-max_degrees, max_degrees].

    Args:
        axis: axis of rotation: ``"x"``, ``"y"`` (up, in ModelNet40), ``"z"``, or ``"any"`` for a random axis, drawn
            uniformly from the sphere. With ``"any"`` and ``max_degrees=180`` the rotation is drawn uniformly from
            SO(3) instead.
        max_degrees: largest angle, in degrees, from 0 to 180.

    Raises:
        ValueError: the axis is unknown or the angle is out of range.
    """

    axis: str = "y"
    max_degrees: float = 180

    def __post_init__(self) -> None:
        if self.axis not in ("any", "x", "y", "z"):
            raise ValueError(f"axis: unknown value {self.axis!r}, expected one of any, x, y, z.")
        check_range("max_degrees", self.max_degrees, 0, 180)

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        # at least single precision: in half precision the rotation would distort the cloud
        dtype = torch.promote_types(points.dtype, torch.float32)
        matrix = rotation_matrices(self._quaternions(len(points), points.device, dtype, generator))
        turned = [part.to(dtype) @ matrix.transpose(1, 2) for part in points.split(3, dim=-1)]
        return torch.cat(turned, dim=-1).to(points.dtype), part_labels

    def _quaternions(
        self, count: int, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None
    ) -> Tensor:
        if self.axis == "any" and self.max_degrees == 180:
            # quaternions uniform on the 3-sphere are rotations uniform over SO(3)
            draw = torch.randn(count, 4, generator=generator, device=device, dtype=dtype)
            return torch.nn.functional.normalize(draw, dim=1)
        if self.axis == "any":
            draw = torch.randn(count, 3, generator=generator, device=device, dtype=dtype)
            axis = torch.nn.functional.normalize(draw, dim=1)
        else:
            axis = torch.eye(3, device=device, dtype=dtype)["xyz".index(self.axis)].expand(count, 3)
        unit = torch.rand(count, 1, generator=generator, device=device, dtype=dtype)
        half = math.radians(self.max_degrees) * (2 * unit - 1) / 2
        return torch.cat([half.cos(), half.sin() * axis], dim=1)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """Convert unit quaternions ``(..., 4)``, real part first, to rotation matrices ``(..., 3, 3)``."""
    w, x, y, z = quaternions.unbind(dim=-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))
