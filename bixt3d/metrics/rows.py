"""Rows of numbers of a split, gathered from all devices."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Rows(Metric):
    """Gather rows of numbers from all devices, those of the first device first.

    Args:
        width: numbers of a row.
        dtype: of all numbers.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, width: int, dtype: torch.dtype = torch.int64):
        super().__init__()
        self.width, self.kind = width, dtype
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, rows: Tensor) -> None:
        """Take in ``(B, width)``."""
        self.rows.append(rows)

    def compute(self) -> Tensor:
        """Return ``(n, width)``."""
        return dim_zero_cat(self.rows)

    def gathered(self) -> Tensor:
        """Return all rows ``(n, width)``, on the CPU; n is 0 where there are none."""
        # a rank without a cloud still takes part in the gathering
        self.update(torch.empty(0, self.width, dtype=self.kind, device=self.device))
        return self.compute().cpu()
