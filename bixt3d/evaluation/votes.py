"""Votes: the mean over predictions of stretched copies of a cloud, as some papers report it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..datasets.transforms import stretch

LOW, HIGH = 0.85, 1.15
LEAST = 1e-30  # a probability, so that its logarithm is a number


def check_votes(votes: int, seed: int) -> None:
    """Raise a ValueError where there are no votes, or the seed cannot draw them."""
    if votes < 1:
        raise ValueError(f"votes: expected at least 1, got {votes}.")
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}.")


class Voting:
    """A task whose prediction of a cloud is the mean of several, of classes or of parts.

    The first vote is that of the cloud as it is. For each further one it is multiplied by a factor for each axis, drawn
    uniformly from [0.85, 1.15], normals with it. What is averaged are probabilities. The factors of a cloud are a
    function of the seed and of its number alone, so neither batches nor devices change a figure.

    Args:
        task: makes each prediction, and brings the meter: one of logits, ``(B, classes)`` or ``(B, N, parts)``.
        votes: predictions for each cloud, at least 1.
        seed: of the factors, 0 or more.

    Raises:
        ValueError: a number out of range.

    Source: Ma et al., PointMLP (2022), public code, which stretches a copy that is stretched already, and reports the
    best of 300 repetitions on the test split; here it is a single one.
    """

    def __init__(self, task: Any, votes: int, seed: int = 0):
        check_votes(votes, seed)
        self.task, self.votes, self.seed = task, votes, seed

    def predict(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return the logarithm of the mean probabilities, and the target of the task."""
        prediction, target = self.task.predict(model, batch)
        total = prediction.float().softmax(dim=-1)
        for factor in self.factors(batch.index).to(batch.points).unbind(dim=1):
            copy = replace(batch, points=stretch(batch.points, factor[:, None]))
            total = total + self.task.predict(model, copy)[0].float().softmax(dim=-1)
        return (total / self.votes).clamp(min=LEAST).log(), target

    def factors(self, index: Tensor) -> Tensor:
        """Return what clouds with these numbers ``(B,)`` are multiplied by: ``(B, votes - 1, 3)`` float64."""
        size = (self.votes - 1, 3)
        drawn = [np.random.default_rng((self.seed, i)).uniform(LOW, HIGH, size) for i in index.tolist()]
        return torch.from_numpy(np.stack(drawn))

    def meter(self) -> Any:
        """Return an empty meter of the task."""
        return self.task.meter()
