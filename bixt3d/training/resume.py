"""Continue a run: from which folder, and whether it would compute what it began to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import differences
from .assembly import meant_by

# What may differ between a run and its continuation: nothing that changes a number it computes.
FREE_ON_RESUME = (
    "data.cache",
    "data.root",
    "model.encoder.checkpoint_activations",
    "run_dir",
    "train.checkpoint_every",
    "train.eval_batch_size",
    "train.keep_freed_memory",
    "train.log_every",
    "train.max_minutes",
    "train.max_steps",
    "train.measure_test",
    "train.resume",
    "train.targets",
)


def resumed_folder(resume: str) -> Path:
    """Return the folder of the run to continue, given by itself or by its ``last.pt``."""
    path = Path(resume)
    if path.is_file() and path.name != "last.pt":
        raise ValueError(
            f"train.resume: a run is continued from its last.pt, which {path.name} is not; give the run's folder, "
            f"{path.parent}, or start a new run from these weights with train.start_from={path}."
        )
    return path.parent if path.name == "last.pt" else path


def check_same_run(saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise where a continuation would compute something else than the run it continues."""
    changed = differences(_on_device(saved), _on_device(given), besides=FREE_ON_RESUME)
    if changed:
        key, before, now = changed[0]
        raise ValueError(
            f"train.resume: the run was started with {key}={before}, got {now} ({len(changed)} settings differ); give "
            "the settings of the run (its config.yaml), or start a new run from its weights with train.start_from=."
        )


def _on_device(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the accelerator that it means here, since ``auto`` is no other than the one it takes."""
    accelerator = meant_by(config["train"].get("accelerator", "auto"))
    return {**config, "train": {**config["train"], "accelerator": accelerator}}
