"""Backend ``pointnet2_ops``: the CUDA kernels of that package, where it is installed, on request by name.

Adapted is what can be made to keep the contract: farthest point sampling and the three nearest neighbours, up
to equally far points, between which the package does not promise the lowest index. Left out are ``ball_query``
(its ball is open and its distances fuse multiplication and addition, so a point on the sphere cannot be told
apart afterwards) and gathering and interpolation (channels first, float32 alone, differentiable once: two
transposes more than torch for the same copy).
"""

import importlib.util
import sys

import torch
from torch import Tensor

from ..precision import widen
from .torch_cluster import in_given_order, start_first

PACKAGE = "pointnet2_ops"
# The package leaves out points with x² + y² + z² <= 1e-3 and starts from distances of 1e10. Clouds are scaled
# to coordinates below SCALED_EXTENT, squares of distances below 4e9, and kept beyond twice that square.
SCALED_EXTENT = 2.0**14
SQ_CLEARANCE = 2e-3


def _missing(points: Tensor | None) -> str | None:
    if points is not None:
        if points.device.type != "cuda":
            return f"needs tensors on a CUDA device, got {points.device.type}"
        if points.dtype == torch.float64:
            return "takes float16, bfloat16 and float32, not float64"
    if PACKAGE not in sys.modules and importlib.util.find_spec(PACKAGE) is None:
        return (
            "needs the package pointnet2_ops, which is not installed "
            "(build it from https://github.com/erikwijmans/Pointnet2_PyTorch)"
        )
    if points is None and not torch.cuda.is_available():
        return "needs a CUDA device, and torch finds none"
    return None


def farthest_why_not(
    points: Tensor | None = None, num_samples: int | None = None, start: Tensor | None = None
) -> str | None:
    """Say what farthest point sampling needs."""
    return _missing(points)


def three_nn_why_not(query: Tensor | None = None, points: Tensor | None = None) -> str | None:
    """Say what the three nearest neighbours need."""
    return _missing(points)


def clear_of_origin(points: Tensor) -> Tensor:
    """Return (B, N, 3) float32 clouds whose points the package all accepts, congruent up to scale.

    Scaling by a power of two is exact and alone carries every point beyond the forbidden ball that is more
    than a few millionths of the cloud's extent away from the origin. A cloud with a point still nearer is
    moved along x as well, which rounds its coordinates to 2⁻²² of the extent: picks may then differ where two
    candidates are equally far to that precision. Nothing waits for the device.
    """
    extent = points.abs().amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(points.dtype).tiny)
    # Exponents within float32's own; a cloud smaller than that is one point.
    exponent = torch.floor(torch.log2(SCALED_EXTENT / extent).clamp(-120, 120)).int()
    scaled = torch.ldexp(points, exponent)
    near = (scaled.square().sum(dim=2, keepdim=True) <= SQ_CLEARANCE).any(dim=1, keepdim=True)
    lowest = scaled[:, :, :1].amin(dim=1, keepdim=True)
    moved = torch.cat([scaled[:, :, :1] - lowest + 1, scaled[:, :, 1:]], dim=2)
    return torch.where(near, moved, scaled).contiguous()


def farthest_point_sample(points: Tensor, num_samples: int, start: Tensor) -> Tensor:
    """Sample clouds that are clear of the origin and begin with their start."""
    from pointnet2_ops import pointnet2_utils

    if len(points) == 0:
        return torch.empty(0, num_samples, dtype=torch.int64, device=points.device)
    points = clear_of_origin(widen(points))
    order = start_first(points.shape[1], start)
    turned = points.gather(1, order[:, :, None].expand(-1, -1, 3)).contiguous()
    return in_given_order(order, pointnet2_utils.furthest_point_sample(turned, num_samples).long())


def three_nn(query: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Take its indices and compute the squares anew, which its square roots have rounded."""
    from pointnet2_ops import pointnet2_utils

    query, points = widen(query).contiguous(), widen(points).contiguous()
    if query.shape[0] * query.shape[1] == 0:
        shape = (*query.shape[:2], 3)
        return query.new_empty(shape), torch.empty(shape, dtype=torch.int64, device=query.device)
    index = pointnet2_utils.three_nn(query, points)[1].long()
    # It answers 0 where a cloud has no third point; ours is the last that was found.
    index = index[:, :, torch.arange(3, device=index.device).clamp(max=points.shape[1] - 1)]
    rows = points.gather(1, index.flatten(1)[:, :, None].expand(-1, -1, 3)).view(*index.shape, 3)
    x, y, z = (query[:, :, None] - rows).square().unbind(dim=-1)
    return x + y + z, index
