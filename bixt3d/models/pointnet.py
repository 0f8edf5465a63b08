"""PointNet++, and PointNet without its two transforms: the baselines that learn from groups in balls, or from none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..layers import LinearNormAct
from ..ops import ball_query, farthest_point_sample, gather_points, group_max, group_points
from .outputs import Level
from .pointmlp import PointMLPClassifier
from .points import check_channels, enough_points


class PointwiseMLP(nn.Sequential):
    """Linear maps, each with batch norm and ReLU, on every point alone: ``(..., in_dim)`` -> ``(..., widths[-1])``."""

    def __init__(self, in_dim: int, widths: Sequence[int]):
        dims = [in_dim, *widths]
        super().__init__(*(LinearNormAct(*pair, bias=True) for pair in pairwise(dims)))


class SetAbstraction(nn.Module):
    """Sample points far apart, and learn each one's features from the points in a ball around it.

    Args:
        in_dim: channels of the features, 0 for none.
        widths: channels after each linear map.
        num_samples: points that are kept, the farthest from one another.
        radius: of the balls, in the unit of the points.
        max_neighbors: the most points of a ball that are looked at; a ball with fewer repeats its first.

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
        """Turn ``(B, N, in_dim)`` at ``(B, N, 3)`` into ``(B, num_samples, widths[-1])`` and its xyz."""
        centers = gather_points(points, farthest_point_sample(points, self.num_samples))
        index = ball_query(centers, points, self.radius, self.max_neighbors)
        apart = group_points(points, index) - centers.unsqueeze(2)
        apart = apart.to(features.dtype)
        grouped = torch.cat((apart, group_points(features, index)), dim=-1) if features.shape[-1] else apart
        return group_max(self.mlp(grouped)), centers


class PointNet2Encoder(nn.Module):
    """Set abstractions, each with fewer points and more channels, then linear maps on every point that is left.

    Without any set abstraction this is the encoder of PointNet, but for its two learnt transforms of the input.

    Args:
        in_channels: 3 for xyz, 6 for xyz and unit normal.
        num_samples, radii, max_neighbors: one number for each set abstraction, see :class:`SetAbstraction`.
        widths: for each set abstraction and for what follows the last one, the channels after each linear map.

    Raises:
        ValueError: the lists differ in length.

    Source: Qi et al., PointNet++ (2017), section 3.2, and appendix B.1 for the sizes; Qi et al., PointNet (2017),
    section 4.2.
    """

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
        self._min_points = max(num_samples, default=1)

    @property
    def min_points(self) -> int:
        """The fewest points that every stage accepts."""
        return self._min_points

    def forward(self, points: Tensor) -> list[Level]:
        """Return the features of ``(B, N, in_channels)`` points and what each stage makes of them.

        Points may have any floating dtype; the features have that of the parameters.

        Raises:
            ValueError: points of another shape, or fewer than :attr:`min_points`.
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
    """Classify point clouds with PointNet++: the maximum over the last points, then three linear maps.

    Its head, 512, 256, classes, is the one that PointMLP took over.

    Source: Qi et al., PointNet++ (2017), appendix B.1.
    """
