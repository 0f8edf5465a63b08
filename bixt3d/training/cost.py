"""Cost of a run and its model: parameters, operations, speed and memory."""

from __future__ import annotations

import copy
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..operations import count_operations
from ..seams import Task
from .curves import read_rates


def run_cost(model: nn.Module, task: Task, loader: Any, folder: Path) -> dict[str, Any]:
    """Return the entries of ``results.json`` about the cost of a run; a value is None if it is not known.

    Args:
        model: the trained model, on the device of the loader.
        task: the task that it was trained on.
        loader: an evaluation loader, whose clouds have the size to count operations for.
        folder: the run's folder.

    Returns:
        - ``parameters``: their number.
        - ``operations``: floating-point operations of a forward pass of one cloud
          (:func:`bixt3d.operations.count_operations`).
        - ``samples_per_second``: the median of ``train.csv``.
        - ``peak_memory``: in bytes, of the first device's tensors on CUDA, of the whole process otherwise.
    """
    rates = read_rates(folder)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "operations": _operations(model, task, loader),
        "samples_per_second": float(f"{statistics.median(rates):.4g}") if rates else None,
        "peak_memory": _peak_memory(next(model.parameters()).device),
    }


def _operations(model: nn.Module, task: Task, loader: Any) -> int | None:
    """Count the operations of a prediction of the task for one cloud."""
    one = copy.copy(loader)
    one.batch_size = 1
    seen: list[tuple] = []
    try:
        with torch.no_grad(), model.register_forward_pre_hook(lambda _, given: seen.append(given)):
            task.predict(model.eval(), next(one.epoch(0)))
        return count_operations(model, *seen[0])
    except Exception:  # a user's model may not run on the meta device; the report must not fail because of it
        return None


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB
