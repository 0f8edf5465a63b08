"""Training on corrupted clouds: another corruption for each batch."""

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
    """Corrupt the clouds of a batch in one way drawn from several, or leave them as they are.

    All clouds of a batch are corrupted in the same way and severity, since the number of points that are left depends
    on both; what is random about a corruption is drawn for each cloud. A compiled model is compiled again for the
    numbers of points that come up.

    Args:
        corruptions: names in :data:`bixt3d.datasets.corruptions.CORRUPTIONS`; null for all.
        severities: the severities to draw from.
        probability: how likely a batch is corrupted, from 0 to 1.
        least: clouds left with fewer points repeat theirs in order up to that number, or up to that of the model which
            they train (:meth:`for_model`) where it needs more.

    Raises:
        ValueError: there is no such corruption or severity, or the probability lies outside its range.
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
        """Return the transform that leaves as many points as the model needs."""
        return replace(self, least=max(self.least, min_points))

    def _apply(self, points: Tensor, part_labels: Tensor | None, generator: torch.Generator | None) -> Drawn:
        assert self.corruptions is not None
        draws = torch.rand(3, generator=generator, device=points.device, dtype=torch.float64).tolist()
        if draws[0] >= self.probability:
            return points, part_labels
        name = self.corruptions[int(draws[1] * len(self.corruptions))]
        severity = self.severities[int(draws[2] * len(self.severities))]
        return repeat_to(self.least, *CORRUPTIONS[name](severity)._apply(points, part_labels, generator))
