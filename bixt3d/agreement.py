"""Let the processes of a distributed run agree when to stop, without synchronising at every step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lightning.fabric import Fabric

EVERY = 1.0  # seconds between two exchanges; a scheduler gives a run half a minute or more to exit


class Agreement:
    """Tell all processes of a run, at the same step, whether any of them was asked to stop.

    The processes exchange this about once a second, or at every step if steps take longer. All of them must do so at
    the same step, so they also agree on the number of steps until the next exchange, from the pace of the slowest.

    Args:
        fabric: launched Lightning Fabric.
    """

    def __init__(self, fabric: Fabric):
        self._fabric = fabric
        self._next = 0
        self._last: tuple[int, float] | None = None

    def on(self, step: int, requested: int | None) -> int | None:
        """Return the signal that asked any process to stop, or None if there was none or no exchange is due yet.

        Args:
            step: number of the optimiser step just done, the same in every process.
            requested: number of the signal that this process received, or None.
        """
        if self._fabric.world_size == 1:
            return requested
        if step < self._next:
            return None
        pace = EVERY  # seconds per step, not measured yet
        if self._last is not None and step > self._last[0]:
            pace = (time.perf_counter() - self._last[1]) / (step - self._last[0])
        notes = torch.tensor([float(requested or 0), pace], device=self._fabric.device)
        number, slowest = map(float, self._fabric.all_reduce(notes, reduce_op="max"))
        self._next = step + max(1, int(EVERY / max(slowest, 1e-6)))
        self._last = (step, time.perf_counter())
        return int(number) or None
