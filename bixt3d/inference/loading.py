"""Load a predictor from a checkpoint."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import load_checkpoint, load_weights
from ..config import from_yaml
from ..signatures import foreign_name
from .predictor import Predictor

# Settings tied to the machine of a run, reset for whoever loads its checkpoint.
ANYWHERE = {"accelerator": "auto", "devices": 1, "resume": None}


def load(
    path: str | os.PathLike[str],
    *,
    classifier: str | os.PathLike[str] | None = None,
    batch_size: int = 16,
    seed: int = 0,
    device: str | None = None,
    precision: str = "32-true",
    compile: bool = False,
    drop_strays: bool = False,
    trust_code: bool = False,
) -> Predictor:
    """Load a checkpoint as a :class:`Predictor`.

    Args:
        path: a ``last.pt`` or ``best.pt``, a run folder (its ``last.pt``), or a ``.safetensors`` file written by
            ``scripts/publish.py``.
        classifier: checkpoint of a classifier, which predicts the category of clouds given without one. All other
            options apply to it as well.
        batch_size: number of forward passes per batch.
        seed: seed for subsampling large clouds.
        device: such as ``"cpu"`` or ``"cuda:0"``; None for a CUDA device if there is one, else the CPU.
        precision, compile, drop_strays: as for :class:`Predictor`.
        trust_code: allow the checkpoint's config to name your own code, see :func:`read_config`.

    Returns:
        A predictor of classes, or of parts if the checkpoint is a segmenter. It expects clouds oriented like the
        training files: if these had z up (``data.up=z``), it turns new clouds in the same way.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the file is not a checkpoint, its config names untrusted code, its weights belong to another
            architecture, the device cannot be used, or :class:`Predictor` raises it.
        RuntimeError: the file is damaged.
    """
    from ..training.assembly import build_model, build_task  # here, since it also loads metrics and loaders

    options: dict[str, Any] = {
        "batch_size": batch_size,
        "seed": seed,
        "device": usable_device(device),
        "precision": precision,
        "compile": compile,
        "drop_strays": drop_strays,
    }
    content = load_checkpoint(Path(path))
    config = read_config(content, path, trust_code=trust_code)
    parts = content.get("parts", ())
    task = build_task(config, content["classes"], parts)
    model = build_model(config, task)
    load_weights(model, content["model"], Path(path))
    if "num_parts" not in task.model_arguments():
        parts = ()  # the data set has parts, but the model is a classifier
    return Predictor(
        model,
        classes=content["classes"],
        parts=parts,
        num_points=training_points(config["data"]),
        config=config,
        takes_category=bool(getattr(model, "takes_category", False)),
        classifier=None if classifier is None else load(classifier, trust_code=trust_code, **options),
        up=trained_up(config["data"]) or "y",
        **options,
    )


def read_config(
    content: Mapping[str, Any], origin: str | os.PathLike[str], *, trust_code: bool = False
) -> dict[str, Any]:
    """Read the config of a checkpoint and check that it names trusted code only.

    The nodes of a config are calls, so building one runs whatever it names.

    Args:
        content: result of :func:`bixt3d.checkpoint.load_checkpoint`.
        origin: the file, for error messages.
        trust_code: allow any importable name, such as your own model. By default, only models, layers, tasks, data sets
            and optimisers of this toolkit and of torch are allowed.

    Raises:
        ValueError: the config names anything else. Nothing has been imported then.
    """
    config = from_yaml(content["config"])
    foreign = None if trust_code else foreign_name(config)
    if foreign is not None:
        raise ValueError(
            f"{origin}: its config names {foreign!r}, which is not a model, layer, task, data set or optimiser of this "
            "toolkit or of torch; if you wrote or trust that code, give trust_code=True (in Python), trust_code=true "
            "(to evaluate.py) or --trust-code (to the other scripts)."
        )
    return config


def training_points(data: Mapping[str, Any]) -> int:
    """Return the number of points per cloud in training.

    Args:
        data: data node of a config. If it has no ``num_points``, the default of the class that it names is used.

    Raises:
        ValueError: there is neither a ``num_points`` nor a default.
    """
    if "num_points" in data:
        return int(data["num_points"])
    parameters = signature(pkgutil.resolve_name(data["_target_"])).parameters
    default = parameters["num_points"].default if "num_points" in parameters else None
    if not isinstance(default, int):
        raise ValueError(
            f"data.num_points: neither the config nor {data['_target_']} says how many points a cloud has; expected "
            "a number, write it into the config."
        )
    return default


def trained_up(data: Mapping[str, Any]) -> str | None:
    """Return the up axis of the training files from the data node of a config, or None if it has none."""
    up = data.get("up")
    return up if up in ("x", "y", "z") else None


def usable_device(name: str | None) -> str:
    """Return ``name`` if that device can be used; for None, ``"cuda"`` if available, else ``"cpu"``.

    Raises:
        ValueError: the device does not exist, or this build of torch does not support it.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device: {name!r} cannot be used here ({str(error).splitlines()[0]}); expected one of {', '.join(there)}."
        ) from error
    return name
