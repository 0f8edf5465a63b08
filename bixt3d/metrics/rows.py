"""Gather rows of numbers from all devices."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Rows(Metric):
    """Gather rows of numbers from all devices, in the order of the devices.

    Args:
        width: length of a row.
        dtype: dtype of the rows.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, width: int, dtype: torch.dtype = torch.int64):
        super().__init__()
        self.width, self.kind = width, dtype
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, rows: Tensor) -> None:
        """Add rows ``(B, width)``."""
        self.rows.append(rows)

    def compute(self) -> Tensor:
        """Return all rows, ``(n, width)``."""
        return dim_zero_cat(self.rows)

    def gathered(self) -> Tensor:
        """Return all rows on the CPU, ``(n, width)``; n may be 0."""
        # a rank without clouds must take part in the gathering, too
        self.update(torch.empty(0, self.width, dtype=self.kind, device=self.device))
        return self.compute().cpu()
