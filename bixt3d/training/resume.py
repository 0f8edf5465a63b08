"""Resume a run: find its folder, and check that the continuation has the same config and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import check_labels
from ..config import differences, from_yaml
from .devices import meant_by

# Settings that may differ between a run and its continuation, since they change no result.
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
# Keys of ``trained_on`` in a checkpoint, with the words for them in messages.
WORDS = {"clouds": "training clouds", "devices": "device(s)", "steps_per_epoch": "steps an epoch"}


def resumed_folder(resume: str) -> Path:
    """Return the folder of the run to continue, given as the folder or as its ``last.pt``.

    Raises:
        ValueError: it is another file.
    """
    path = Path(resume)
    if path.is_file() and path.name != "last.pt":
        raise ValueError(
            f"train.resume: a run is continued from its last.pt, which {path.name} is not; give the run's folder, "
            f"{path.parent}, or start a new run from these weights with train.start_from={path}."
        )
    return path.parent if path.name == "last.pt" else path


def check_run_dir(run_dir: str | None, folder: Path) -> None:
    """Raise ValueError if ``run_dir`` is not the folder that ``train.resume`` continues."""
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
    """Raise if a continuation has other labels, or epochs of another length, than the run.

    Args:
        saved: the checkpoint to continue from. Older ones have no ``trained_on``; the steps per epoch are then
            derived from their progress, once an epoch is complete.
        origin: its file, for messages.
        classes, parts: names of the continuation, in label order.
        trained_on: counts of the continuation, under the keys of ``WORDS``.

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
    """Raise if the config of a continuation differs from that of the run.

    Args:
        saved, given: configs of the run and of the continuation.
        origin: the checkpoint to continue from, for messages.

    Raises:
        ValueError: they differ in a key that is not in ``FREE_ON_RESUME``.
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
    """Return a config with ``auto`` replaced by the accelerator that it means on this machine."""
    accelerator = meant_by(config["train"].get("accelerator", "auto"))
    return {**config, "train": {**config["train"], "accelerator": accelerator}}
