"""Continue a run: from which folder, and whether it would compute what it began to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import check_labels
from ..config import differences, from_yaml
from .devices import meant_by

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
# What a run is trained on, as ``trained_on`` of its checkpoints holds it, and the words for it in messages.
WORDS = {"clouds": "training clouds", "devices": "device(s)", "steps_per_epoch": "steps an epoch"}


def resumed_folder(resume: str) -> Path:
    """Return the folder of the run to continue, given by itself or by its ``last.pt``."""
    path = Path(resume)
    if path.is_file() and path.name != "last.pt":
        raise ValueError(
            f"train.resume: a run is continued from its last.pt, which {path.name} is not; give the run's folder, "
            f"{path.parent}, or start a new run from these weights with train.start_from={path}."
        )
    return path.parent if path.name == "last.pt" else path


def check_run_dir(run_dir: str | None, folder: Path) -> None:
    """Raise where ``run_dir`` is another folder than the one that ``train.resume`` continues."""
    if run_dir is not None and Path(run_dir).resolve() != folder.resolve():
        raise ValueError(
            f"run_dir: {run_dir} is another folder than {folder}, which train.resume continues; continue with "
            "run_dir=null, or start a new run with train.resume=null."
        )


def check_same_data(
    saved: Mapping[str, Any],
    origin: Path,
    *,
    classes: Sequence[str],
    parts: Sequence[str],
    trained_on: Mapping[str, int],
) -> None:
    """Raise where a continuation would number labels otherwise, or make epochs of another length, than the run did.

    Args:
        saved: the checkpoint that is continued. One of an older version has no ``trained_on``, but tells after its
            first epoch how many steps an epoch had.
        origin: its file, for messages.
        classes, parts: names of the continuation, in label order.
        trained_on: what the continuation is trained on, under the keys of ``WORDS``.

    Raises:
        ValueError: they differ.
    """
    check_labels(origin, "classes", saved["classes"], classes)
    check_labels(origin, "parts", saved.get("parts", ()), parts)
    before = saved["trained_on"] if "trained_on" in saved else _told_by_progress(saved)
    for key, count in before.items():
        if trained_on[key] != count:
            raise ValueError(
                f"train.resume: the run was started with {count:,} {WORDS[key]}, got {trained_on[key]:,}; give it the "
                "data and the number of devices (train.devices, torchrun's processes) that it was started with, or "
                f"start a new run from its weights with train.start_from={origin}."
            )


def _told_by_progress(saved: Mapping[str, Any]) -> dict[str, int]:
    step, epoch, batch = (saved["progress"][key] for key in ("step", "epoch", "batch"))
    accumulate = from_yaml(saved["config"])["train"].get("accumulate", 1)
    return {"steps_per_epoch": (step - batch // accumulate) // epoch} if epoch else {}


def check_same_run(saved: Mapping[str, Any], given: Mapping[str, Any], origin: Path) -> None:
    """Raise where a continuation would compute something else than the run it continues.

    Args:
        saved, given: configs of the run and of the continuation.
        origin: checkpoint that is continued, for messages.

    Raises:
        ValueError: they differ in more than ``FREE_ON_RESUME``.
    """
    changed = differences(_on_device(saved), _on_device(given), besides=FREE_ON_RESUME)
    if changed:
        key, before, now = changed[0]
        others = f" ({len(changed)} settings differ)" if len(changed) > 1 else ""
        raise ValueError(
            f"train.resume: the run was started with {key}={before}, got {now}{others}; give the settings of the run "
            f"(its config.yaml), or start a new run from its weights with train.start_from={origin}."
        )


def _on_device(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the accelerator that it means here, since ``auto`` is no other than the one it takes."""
    accelerator = meant_by(config["train"].get("accelerator", "auto"))
    return {**config, "train": {**config["train"], "accelerator": accelerator}}
