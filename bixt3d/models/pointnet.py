"""Baselines: PointNet++, and PointNet without its two learnt transforms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..layers import LinearNormAct
from ..layers.positional import check_channels
from ..ops import ball_query, farthest_point_sample, gather_points, group_max, group_points
from .outputs import Level
from .pointmlp import PointMLPClassifier
from .points import check_in_channels, enough_points


class PointwiseMLP(nn.Sequential):
    """Linear maps, each with batch norm and ReLU, on each point: ``(..., in_dim)`` -> ``(..., widths[-1])``."""

    def __init__(self, in_dim: int, widths: Sequence[int]):
        dims = [in_dim, *widths]
        super().__init__(*(LinearNormAct(*pair, bias=True) for pair in pairwise(dims)))


class SetAbstraction(nn.Module):
    """Sample farthest points and compute the features of each from the points in a ball around it.

    Args:
        in_dim: number of feature channels, 0 for none.
        widths: channels after each linear map.
        num_samples: number of points sampled. A smaller cloud keeps all of its points.
        radius: radius of the balls, in the unit of the points.
        max_neighbors: maximum number of points per ball. A ball with fewer repeats its first point.

    Source: Qi et al., PointNet++ (2017), section 3.2, with grouping at a single scale.
    """

    def __init__(
        self, in_dim: int, widths: Sequence[int], *, num_samples: int, radius: float, max_neighbors: int
    ):
        super().__init__()
        self.num_samples = num_samples
        self.radius = radius
        self.max_neighbors = max_neighbors
        self.mlp = PointwiseMLP(3 + in_dim, widths)

    def forward(self, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Map features ``(B, N, in_dim)`` at points ``(B, N, 3)`` to ``(B, S, widths[-1])`` and their xyz.

        S is ``num_samples``, or N if that is smaller.
        """
        count = min(self.num_samples, points.shape[1])
        centers = gather_points(points, farthest_point_sample(points, count))
        index = ball_query(centers, points, self.radius, self.max_neighbors)
        apart = group_points(points, index) - centers.unsqueeze(2)
        apart = apart.to(features.dtype)
        grouped = torch.cat((apart, group_points(features, index)), dim=-1) if features.shape[-1] else apart
        return group_max(self.mlp(grouped)), centers


class PointNet2Encoder(nn.Module):
    """Apply set abstractions with ever fewer points, then an MLP on each remaining point.

    Without set abstractions, this is the encoder of PointNet except for its two learnt transforms.

    Args:
        in_channels: 3 for xyz, 6 for xyz and unit normal.
        num_samples, radii, max_neighbors: one number per set abstraction, see :class:`SetAbstraction`.
        widths: channels after each linear map, one list per set abstraction and one for the final MLP.

    Raises:
        ValueError: the lists differ in length, or ``in_channels`` is neither 3 nor 6.

    Source: Qi et al., PointNet++ (2017), section 3.2, and appendix B.1 for the sizes; Qi et al., PointNet (2017),
    section 4.2.
    """

    min_points = 1

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_samples: Sequence[int] = (512, 128),
        radii: Sequence[float] = (0.2, 0.4),
        max_neighbors: Sequence[int] = (32, 64),
        widths: Sequence[Sequence[int]] = ((64, 64, 128), (128, 128, 256), (256, 512, 1024)),
    ):
        super().__init__()
        if not len(num_samples) == len(radii) == len(max_neighbors) == len(widths) - 1:
            raise ValueError(
                "num_samples, radii, max_neighbors: expected a number for each set abstraction, and one more list in "
                f"widths for what follows them, got {len(num_samples)}, {len(radii)}, {len(max_neighbors)} and "
                f"{len(widths)}."
            )
        check_in_channels(in_channels)
        self.in_channels = in_channels
        dims = [in_channels - 3, *(stage[-1] for stage in widths)]
        self.stages = nn.ModuleList(
            SetAbstraction(dim, stage, num_samples=count, radius=radius, max_neighbors=most)
            for dim, stage, count, radius, most in zip(
                dims, widths, num_samples, radii, max_neighbors, strict=False
            )
        )
        self.last = PointwiseMLP(3 + dims[-2], widths[-1])
        self.level_dims = tuple(dims)

    def forward(self, points: Tensor) -> list[Level]:
        """Return the input features of points ``(B, N, in_channels)`` and the output of each stage.

        Points may have any floating dtype. Features have the dtype of the parameters.

        Raises:
            ValueError: the points have another shape, or are fewer than :attr:`min_points`.
        """
        check_channels(points, self.in_channels)
        enough_points(points, self.min_points)
        dtype = next(self.parameters()).dtype
        levels = [Level(points[..., 3:].to(dtype), points[..., :3].contiguous())]
        for stage in self.stages:
            levels.append(Level(*stage(*levels[-1])))
        features, centers = levels[-1]
        levels.append(Level(self.last(torch.cat((centers.to(dtype), features), dim=-1)), centers))
        return levels


class PointNet2Classifier(PointMLPClassifier):
    """Classify point clouds with PointNet++: max-pool the last level, then apply an MLP with two hidden layers.

    PointMLP adopted its head (512, 256, classes).

    Source: Qi et al., PointNet++ (2017), appendix B.1.
    """
