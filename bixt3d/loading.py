"""Make a predictor of a checkpoint alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from .checkpoint import load_checkpoint, load_weights
from .config import from_yaml
from .predictor import Predictor


def load(
    path: str | os.PathLike[str],
    *,
    classifier: str | os.PathLike[str] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    device: str | None = None,
    compile: bool = False,
    drop_strays: bool = False,
) -> Predictor:
    """Rebuild the model of a checkpoint, ready to predict.

    Args:
        path: a ``last.pt`` or ``best.pt``, a run folder (its ``last.pt``), or a ``.safetensors`` file of
            ``scripts/publish.py``.
        classifier: checkpoint of a classifier that says the category of clouds that come without one.
        batch_size: forward passes that run at once.
        seed: of the draw of points from large clouds.
        device: such as ``"cpu"`` or ``"cuda:0"``; None takes a CUDA device where there is one.
        compile, drop_strays: as for :class:`Predictor`.

    Returns:
        A predictor of classes, or of parts where the checkpoint is of a segmenter.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the file is no checkpoint, or its weights are of another architecture.
        RuntimeError: the file is damaged.
    """
    from .assembly import build_model, build_task  # bring metrics and loaders, which predicting does not need

    content = load_checkpoint(Path(path))
    config = from_yaml(content["config"])
    parts = content.get("parts", ())
    model = build_model(config, content["classes"], parts)
    load_weights(model, content["model"], Path(path))
    if "num_parts" not in build_task(config, content["classes"], parts).model_arguments():
        parts = ()  # the data set has some, but the model classifies
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "device": device,
        "compile": compile,
        "drop_strays": drop_strays,
    }
    return Predictor(
        model,
        classes=content["classes"],
        parts=parts,
        num_points=config["data"].get("num_points", 1024),
        takes_category=bool(getattr(model, "takes_category", False)),
        classifier=None if classifier is None else load(classifier, **options),
        batch_size=batch_size,
        seed=seed,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        compile=compile,
        drop_strays=drop_strays,
    )
