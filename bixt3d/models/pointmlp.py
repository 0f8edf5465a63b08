"""PointMLP, the baseline whose grouping and decoder BiXT borrows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..layers import AffineGrouping, LinearNormAct, PointwiseResidual
from ..layers.affine_grouping import map_groups
from ..layers.plain import is_plain
from ..ops import group_max
from .decoder import PointMLPDecoder
from .outputs import Level
from .points import check_channels, enough_points, fewest_points


class PointMLPStage(nn.Module):
    """Group, refine each neighbour, pool the group by its maximum, refine each anchor.

    Args:
        in_dim, out_dim: channels before and after.
        num_neighbors, reduction, normalize, use_xyz: see :class:`~bixt3d.layers.AffineGrouping`.
        blocks_before, blocks_after: residual blocks before and after the pooling.
        expansion, bias: of the blocks, see :class:`~bixt3d.layers.PointwiseResidual`.

    Source: Ma et al., PointMLP (ICLR 2022), section 3.2.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        num_neighbors: int,
        reduction: int,
        normalize: str,
        use_xyz: bool,
        blocks_before: int,
        blocks_after: int,
        expansion: float,
        bias: bool,
    ):
        super().__init__()
        self.grouping = AffineGrouping(
            in_dim, num_neighbors=num_neighbors, reduction=reduction, normalize=normalize, use_xyz=use_xyz
        )
        self.transfer = LinearNormAct(self.grouping.out_channels, out_dim, bias=bias)

        def blocks(count: int) -> nn.Sequential:
            return nn.Sequential(
                *(PointwiseResidual(out_dim, expansion=expansion, bias=bias) for _ in range(count))
            )

        self.before = blocks(blocks_before)
        self.after = blocks(blocks_after)

    def forward(self, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Turn ``(B, N, in_dim)`` at ``(B, N, 3)`` into ``(B, N // reduction, out_dim)`` and its xyz."""
        if is_plain({self.transfer: LinearNormAct}):
            groups = map_groups(self.grouping, points, features, self.transfer[0])
            grouped = self.transfer.norm_act(groups.grouped)
        else:
            groups = map_groups(self.grouping, points, features, self.transfer)
            grouped = groups.grouped
        return self.after(group_max(self.before(grouped))), groups.centers


class PointMLPEncoder(nn.Module):
    """A hierarchy of local groups, each stage with fewer points and more channels.

    Args:
        in_channels: 3 for xyz, 6 for xyz and unit normal.
        embedding_dim: channels after the first linear map.
        width_factors: by how much each stage multiplies the channels.
        num_neighbors, reductions, blocks_before, blocks_after: one number for each stage.
        normalize, use_xyz: see :class:`~bixt3d.layers.AffineGrouping`.
        expansion, bias: of the residual blocks.

    Raises:
        ValueError: the lists differ in length.

    Source: Ma et al., PointMLP (ICLR 2022), section 3.2 and its public code.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        embedding_dim: int = 64,
        width_factors: Sequence[int] = (2, 2, 2, 2),
        num_neighbors: Sequence[int] = (24, 24, 24, 24),
        reductions: Sequence[int] = (2, 2, 2, 2),
        blocks_before: Sequence[int] = (2, 2, 2, 2),
        blocks_after: Sequence[int] = (2, 2, 2, 2),
        normalize: str = "anchor",
        use_xyz: bool = False,
        expansion: float = 1.0,
        bias: bool = False,
    ):
        super().__init__()
        lists = {
            "num_neighbors": num_neighbors,
            "reductions": reductions,
            "blocks_before": blocks_before,
            "blocks_after": blocks_after,
        }
        for name, values in lists.items():
            if len(values) != len(width_factors):
                raise ValueError(
                    f"{name}: expected {len(width_factors)} numbers, one for each of width_factors, got "
                    f"{len(values)}."
                )
        if in_channels not in (3, 6):
            raise ValueError(f"in_channels: expected 3 (xyz) or 6 (xyz and normal), got {in_channels}.")
        self.in_channels = in_channels
        self.embedding = LinearNormAct(in_channels, embedding_dim, bias=bias)
        self.stages = nn.ModuleList()
        dims = [embedding_dim]
        for factor, k, reduction, before, after in zip(width_factors, *lists.values(), strict=True):
            dims.append(dims[-1] * factor)
            self.stages.append(
                PointMLPStage(
                    dims[-2],
                    dims[-1],
                    num_neighbors=k,
                    reduction=reduction,
                    normalize=normalize,
                    use_xyz=use_xyz,
                    blocks_before=before,
                    blocks_after=after,
                    expansion=expansion,
                    bias=bias,
                )
            )
        self.level_dims = tuple(dims)
        self._groupings = tuple(zip(num_neighbors, reductions, strict=True))

    @property
    def min_points(self) -> int:
        """The fewest points that every stage accepts."""
        return fewest_points(self._groupings)

    @property
    def reduction(self) -> int:
        """Points go in as N and come out as about ``N // reduction``."""
        return math.prod(reduction for _, reduction in self._groupings)

    def forward(self, points: Tensor) -> list[Level]:
        """Return the embedding of ``(B, N, in_channels)`` points and what each stage makes of it.

        Points may have any floating dtype; the features have that of the parameters.

        Raises:
            ValueError: points of another shape, or fewer than :attr:`min_points`.
        """
        check_channels(points, self.in_channels)
        enough_points(points, self.min_points)
        features = points.to(next(self.parameters()).dtype)
        levels = [Level(self.embedding(features), points[..., :3].contiguous())]
        for stage in self.stages:
            levels.append(Level(*stage(*levels[-1])))
        return levels


class PointMLPClassifier(nn.Module):
    """Classify point clouds with PointMLP: the maximum over the last points, then three linear maps.

    Args:
        num_classes: number of classes.
        encoder: see :class:`PointMLPEncoder`.
        head_dims: channels of the two hidden layers of the head.
        dropout: dropout after each of them.

    Source: Ma et al., PointMLP (ICLR 2022), sections 3.2 and 4.1.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        encoder: PointMLPEncoder,
        head_dims: Sequence[int] = (512, 256),
        dropout: float = 0.5,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.encoder = encoder
        layers: list[nn.Module] = []
        dim = encoder.level_dims[-1]
        for hidden in head_dims:
            layers += [LinearNormAct(dim, hidden, bias=True), nn.Dropout(dropout)]
            dim = hidden
        self.head = nn.Sequential(*layers, nn.Linear(dim, num_classes))

    @property
    def in_channels(self) -> int:
        """Channels of a point: 3 for xyz, 6 for xyz and normal."""
        return self.encoder.in_channels

    @property
    def min_points(self) -> int:
        """The fewest points a cloud may have."""
        return self.encoder.min_points

    @property
    def min_batch_size(self) -> int:
        """The fewest clouds of a training batch: the batch norms of the head see one vector of each cloud."""
        return 2 if len(self.head) > 1 else 1

    def forward(self, points: Tensor) -> Tensor:
        """Classify ``(B, N, C)`` points; returns ``(B, num_classes)`` logits."""
        return self.head(self.encoder(points)[-1].tokens.amax(dim=1))


class PointMLPSegmenter(nn.Module):
    """Segment the parts of point clouds with PointMLP.

    Args:
        num_parts: number of parts, over all categories.
        num_categories: number of categories, whose one-hot the decoder embeds.
        encoder: with the settings of part segmentation (k 32, reduction 4, ``use_xyz``, biases).
        decoder: completes :class:`PointMLPDecoder`.

    Source: Ma et al., PointMLP (ICLR 2022), section 4.3 and its public code.
    """

    takes_category = True

    def __init__(
        self,
        num_parts: int,
        num_categories: int,
        *,
        encoder: PointMLPEncoder,
        decoder: Callable[..., PointMLPDecoder] = PointMLPDecoder,
    ):
        super().__init__()
        self.num_parts = num_parts
        self.num_categories = num_categories
        self.encoder = encoder
        self.decoder = decoder(
            level_dims=encoder.level_dims, num_parts=num_parts, num_categories=num_categories
        )

    @property
    def in_channels(self) -> int:
        """Channels of a point: 3 for xyz, 6 for xyz and normal."""
        return self.encoder.in_channels

    @property
    def min_points(self) -> int:
        """The fewest points a cloud may have."""
        return self.encoder.min_points

    @property
    def min_batch_size(self) -> int:
        """The fewest clouds of a training batch."""
        return getattr(self.decoder, "min_batch_size", 1)

    def forward(self, points: Tensor, category: Tensor | None = None) -> Tensor:
        """Score the parts of ``(B, N, C)`` points of ``(B,)`` categories: ``(B, N, num_parts)`` logits."""
        return self.decoder(self.encoder(points), category)
