"""Notice when training has come apart, and say the way back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def check_finite(what: str, values: Sequence[Tensor], step: int, folder: Path) -> None:
    """Raise where a number is none any more; waits for the device once.

    Args:
        what: the word for the values in the message.
        values: real, of any shapes, on one device.
        step: optimiser steps that are done.
        folder: the run's folder, with the checkpoints that there are to begin again from.

    Raises:
        RuntimeError: a value is nan or infinite.
    """
    if torch.stack([value.detach().isfinite().all() for value in values]).all():
        return
    found = "nan" if any(value.isnan().any() for value in values) else "inf"
    saved = next((p for p in (folder / "best.pt", folder / "last.pt") if p.is_file()), None)
    # continued, the run would compute the same again
    again = "" if saved is None else f", in a new run that begins with train.start_from={saved}"
    raise RuntimeError(
        f"{what}: became {found} by step {step}; lower optim.optimizer.lr, set train.clip_norm, or train with "
        f"train.precision=32-true{again}."
    )
