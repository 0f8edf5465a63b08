"""Detect that training has diverged, and say how to recover."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def check_finite(what: str, values: Sequence[Tensor], step: int, folder: Path) -> None:
    """Raise if any value is NaN or infinite. Synchronises with the device once.

    Args:
        what: name of the values in the message.
        values: real tensors of any shapes, on one device.
        step: optimiser steps done.
        folder: the run's folder. The message names a checkpoint in it to start from, if there is one.

    Raises:
        RuntimeError: a value is NaN or infinite.
    """
    if torch.stack([value.detach().isfinite().all() for value in values]).all():
        return
    found = "nan" if any(value.isnan().any() for value in values) else "inf"
    saved = next((p for p in (folder / "best.pt", folder / "last.pt") if p.is_file()), None)
    # a resumed run would only diverge again, so advise a new one
    again = "" if saved is None else f", in a new run with train.start_from={saved}"
    raise RuntimeError(
        f"{what}: became {found} by step {step}; lower optim.optimizer.lr, set train.clip_norm, or train with "
        f"train.precision=32-true{again}."
    )
