"""PointMLP, a baseline whose grouping and decoder BiXT uses too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..layers import AffineGrouping, LinearNormAct, PointwiseResidual
from ..layers.affine_grouping import map_groups
from ..layers.plain import is_plain
from ..layers.positional import check_channels
from ..ops import group_max
from .decoder import PointMLPDecoder
from .outputs import Level
from .points import check_in_channels, enough_points, fewest_points


class PointMLPStage(nn.Module):
    """Group points, refine each neighbour, max-pool each group and refine its anchor.

    Args:
        in_dim, out_dim: input and output channels.
        num_neighbors, reduction, normalize, use_xyz: see :class:`~bixt3d.layers.AffineGrouping`.
        blocks_before, blocks_after: number of residual blocks before and after the pooling.
        expansion, bias: settings of the residual blocks, see :class:`~bixt3d.layers.PointwiseResidual`.

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
        """Map features ``(B, N, in_dim)`` at points ``(B, N, 3)`` to ``(B, N // reduction, out_dim)`` and their xyz."""
        if is_plain({self.transfer: LinearNormAct}):
            groups = map_groups(self.grouping, points, features, self.transfer[0])
            grouped = self.transfer.norm_act(groups.grouped)
        else:
            groups = map_groups(self.grouping, points, features, self.transfer)
            grouped = groups.grouped
        return self.after(group_max(self.before(grouped))), groups.centers


class PointMLPEncoder(nn.Module):
    """Encode points in a hierarchy of stages, each with fewer points and more channels.

    Args:
        in_channels: 3 for xyz, 6 for xyz and unit normal.
        embedding_dim: channels after the first linear map.
        width_factors: factor by which each stage multiplies the channels.
        num_neighbors, reductions, blocks_before, blocks_after: one number per stage, see :class:`PointMLPStage`.
        normalize, use_xyz: see :class:`~bixt3d.layers.AffineGrouping`.
        expansion, bias: settings of the residual blocks, see :class:`~bixt3d.layers.PointwiseResidual`.

    Raises:
        ValueError: the lists differ in length, or ``in_channels`` is neither 3 nor 6.

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
        check_in_channels(in_channels)
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
        """Minimum number of points that every stage accepts."""
        return fewest_points(self._groupings)

    @property
    def reduction(self) -> int:
        """Factor by which the number of points shrinks: N points become about ``N // reduction``."""
        return math.prod(reduction for _, reduction in self._groupings)

    def forward(self, points: Tensor) -> list[Level]:
        """Return the embedding of points ``(B, N, in_channels)`` and the output of each stage.

        Points may have any floating dtype. Features have the dtype of the parameters.

        Raises:
            ValueError: the points have another shape, or are fewer than :attr:`min_points`.
        """
        check_channels(points, self.in_channels)
        enough_points(points, self.min_points)
        features = points.to(next(self.parameters()).dtype)
        levels = [Level(self.embedding(features), points[..., :3].contiguous())]
        for stage in self.stages:
            levels.append(Level(*stage(*levels[-1])))
        return levels


class PointMLPClassifier(nn.Module):
    """Classify point clouds with PointMLP: max-pool the last level, then apply an MLP with two hidden layers.

    Args:
        num_classes: number of classes.
        encoder: see :class:`PointMLPEncoder`.
        head_dims: channels of the hidden layers of the head.
        dropout: dropout after each hidden layer.

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
        """Number of channels per point: 3 for xyz, 6 for xyz and normal."""
        return self.encoder.in_channels

    @property
    def min_points(self) -> int:
        """Minimum number of points per cloud."""
        return self.encoder.min_points

    @property
    def min_batch_size(self) -> int:
        """Minimum number of clouds per training batch. The batch norms of the head see one vector per cloud."""
        return 2 if len(self.head) > 1 else 1

    def forward(self, points: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)`` for points ``(B, N, C)``."""
        return self.head(self.encoder(points)[-1].tokens.amax(dim=1))


class PointMLPSegmenter(nn.Module):
    """Segment the parts of point clouds with PointMLP.

    Args:
        num_parts: total number of parts of all categories.
        num_categories: number of categories, which the decoder embeds as one-hot.
        encoder: encoder with the settings of part segmentation (k 32, reduction 4, ``use_xyz``, biases).
        decoder: builder of a :class:`PointMLPDecoder`, called with ``level_dims``, ``num_parts`` and
            ``num_categories``.

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
        """Number of channels per point: 3 for xyz, 6 for xyz and normal."""
        return self.encoder.in_channels

    @property
    def min_points(self) -> int:
        """Minimum number of points per cloud."""
        return self.encoder.min_points

    @property
    def min_batch_size(self) -> int:
        """Minimum number of clouds per training batch."""
        return getattr(self.decoder, "min_batch_size", 1)

    def forward(self, points: Tensor, category: Tensor | None = None) -> Tensor:
        """Return logits ``(B, N, num_parts)`` for points ``(B, N, C)`` and int64 categories ``(B,)``."""
        return self.decoder(self.encoder(points), category)
