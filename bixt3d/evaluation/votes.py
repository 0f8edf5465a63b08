"""Voting: average predictions over stretched copies of a cloud, as some papers do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.transforms import stretch

LOW, HIGH = 0.85, 1.15
LEAST = 1e-30  # smallest probability, so that its logarithm is finite


def check_votes(votes: int, seed: int) -> None:
    """Raise a ValueError if ``votes`` is below 1 or ``seed`` below 0."""
    if votes < 1:
        raise ValueError(f"votes: expected at least 1, got {votes}.")
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}.")


class Voting:
    """Wrap a task so that its prediction for each cloud is the mean over several votes.

    The first vote is for the unchanged cloud. For each further vote, the cloud is stretched by one factor per axis,
    drawn uniformly from [0.85, 1.15]; normals stay perpendicular to the surface. The probabilities are averaged. The
    factors depend only on the seed and the index of the cloud, so results do not depend on batches or devices.

    Args:
        task: task of classification or part segmentation, which predicts logits ``(B, classes)`` or ``(B, N, parts)``.
        votes: number of predictions per cloud, at least 1.
        seed: seed of the factors, 0 or more.

    Raises:
        ValueError: a number is out of range.

    Source: Ma et al., PointMLP (2022), public code. That code stretches copies that are already stretched, and reports
    the best of 300 repetitions on the test split. Here there is a single repetition.
    """

    def __init__(self, task: Any, votes: int, seed: int = 0):
        check_votes(votes, seed)
        self.task, self.votes, self.seed = task, votes, seed

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return the logarithm of the mean probabilities, and the task's target."""
        prediction, target = self.task.predict(model, batch)
        total = prediction.float().softmax(dim=-1)
        for factor in self.factors(batch.index).to(batch.points).unbind(dim=1):
            copy = replace(batch, points=stretch(batch.points, factor[:, None]))
            total = total + self.task.predict(model, copy)[0].float().softmax(dim=-1)
        return (total / self.votes).clamp(min=LEAST).log(), target

    def factors(self, index: Tensor) -> Tensor:
        """Return the factors ``(B, votes - 1, 3)`` float64 of the clouds with indices ``(B,)``."""
        size = (self.votes - 1, 3)
        drawn = [np.random.default_rng((self.seed, i)).uniform(LOW, HIGH, size) for i in index.tolist()]
        return torch.from_numpy(np.stack(drawn))

    def meter(self) -> Any:
        """Return a new meter of the task."""
        return self.task.meter()
