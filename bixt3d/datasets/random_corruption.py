"""Augment training batches with random corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bixt3d.datasets.corruption_base import SEVERITIES, repeat_to
from bixt3d.datasets.corruptions import CORRUPTIONS
from bixt3d.datasets.transform_base import Drawn, Transform, check_range


@dataclass(frozen=True)
class RandomCorruption(Transform):
    """Corrupt the clouds of a batch with a randomly chosen corruption, or leave them unchanged.

    All clouds of a batch get the same corruption and severity, since these determine the number of points that are
    left. The random numbers of the corruption are drawn separately for each cloud. A compiled model is recompiled for
    the numbers of points that occur.

    Args:
        corruptions: names in :data:`bixt3d.datasets.corruptions.CORRUPTIONS`; None (``null`` in a config) for all.
        severities: severities to choose from.
        probability: probability that a batch is corrupted, from 0 to 1.
        least: smallest number of points of a cloud. Clouds with fewer points left repeat them in order up to that
            number, or up to the number that the model needs if that is larger (:meth:`for_model`).

    Raises:
        ValueError: a corruption or severity is unknown, or the probability is out of range.
    """

    corruptions: Sequence[str] | None = None
    severities: Sequence[int] = SEVERITIES
    probability: float = 0.5
    least: int = 1

    def __post_init__(self) -> None:
        names = tuple(CORRUPTIONS) if self.corruptions is None else tuple(self.corruptions)
        object.__setattr__(self, "corruptions", names)
        object.__setattr__(self, "severities", tuple(self.severities))
        unknown = [name for name in names if name not in CORRUPTIONS]
        if unknown or not names:
            got = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"corruptions: expected some of {', '.join(CORRUPTIONS)}, got {got}.")
        if not self.severities or not set(self.severities) <= set(SEVERITIES):
            raise ValueError(f"severities: expected some of 1 to 5, got {list(self.severities)}.")
        check_range("probability", self.probability, 0, 1)

    def for_model(self, min_points: int) -> RandomCorruption:
        """Return the transform adapted to a model that needs at least ``min_points`` points."""
        return replace(self, least=max(self.least, min_points))

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        assert self.corruptions is not None
        draws = torch.rand(3, generator=generator, device=points.device, dtype=torch.float64).tolist()
        if draws[0] >= self.probability:
            return points, part_labels
        name = self.corruptions[int(draws[1] * len(self.corruptions))]
        severity = self.severities[int(draws[2] * len(self.severities))]
        return repeat_to(self.least, *CORRUPTIONS[name](severity)._apply(points, part_labels, generator))
