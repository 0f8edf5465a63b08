"""The folder that a run is written into."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .resume import resumed_folder
from .settings import TrainSettings


def run_folder(config: Mapping[str, Any], settings: TrainSettings, fabric: Any) -> Path:
    """Return the folder of the run, the same on every rank."""
    folder = config.get("run_dir") if settings.resume is None else str(resumed_folder(settings.resume))
    if folder is None:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        folder = f"runs/{config['name']}/{stamp}"
        attempt = 1
        while Path(folder).exists():
            attempt += 1
            folder = f"runs/{config['name']}/{stamp}-{attempt}"
    folder = Path(fabric.broadcast(str(folder)))
    if settings.resume is None and (folder / "last.pt").exists():
        raise ValueError(
            f"run_dir: {folder} holds a run already; choose another folder, or continue it with "
            f"train.resume={folder}."
        )
    return folder
