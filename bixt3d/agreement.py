"""Let the processes of a run agree to stop, without a wait in every step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning.fabric import Fabric

EVERY = 1.0  # seconds between two agreements; a scheduler gives a run half a minute or more to leave


class Agreement:
    """Whether any process of a run was asked to stop: the same answer, at the same step, in all of them.

    They compare notes about once a second, or every step where steps take longer. As each step has to be the same
    for all, they agree on how many to wait as well, by the pace of the slowest.

    Args:
        fabric: launched Lightning Fabric.
    """

    def __init__(self, fabric: Fabric):
        self._fabric = fabric
        self._next = 0
        self._last: tuple[int, float] | None = None

    def on(self, step: int, requested: int | None) -> int | None:
        """Return the signal that any process was asked to stop by, None where none was or none has been asked yet.

        Args:
            step: number of the optimiser step just done, the same in every process.
            requested: number of the signal that came to this process, or None.
        """
        if self._fabric.world_size == 1:
            return requested
        if step < self._next:
            return None
        pace = EVERY  # nothing is known of it yet
        if self._last is not None and step > self._last[0]:
            pace = (time.perf_counter() - self._last[1]) / (step - self._last[0])
        notes = torch.tensor([float(requested or 0), pace], device=self._fabric.device)
        number, slowest = map(float, self._fabric.all_reduce(notes, reduce_op="max"))
        self._next = step + max(1, int(EVERY / max(slowest, 1e-6)))
        self._last = (step, time.perf_counter())
        return int(number) or None
