"""Make a predictor of a checkpoint alone."""

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

# Settings that say where a run computed: chosen again by whoever takes up its checkpoint.
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
    """Rebuild the model of a checkpoint, ready to predict.

    Args:
        path: a ``last.pt`` or ``best.pt``, a run folder (its ``last.pt``), or a ``.safetensors`` file of
            ``scripts/publish.py``.
        classifier: checkpoint of a classifier that says the category of clouds that come without one.
        batch_size: forward passes that run at once.
        seed: of the draw of points from large clouds.
        device: such as ``"cpu"`` or ``"cuda:0"``; None takes a CUDA device where there is one.
        precision, compile, drop_strays: as for :class:`Predictor`.
        trust_code: let the checkpoint's config name code of your own, see :func:`read_config`.
        All but ``path`` hold for the classifier as well.

    Returns:
        A predictor of classes, or of parts where the checkpoint is of a segmenter. It takes clouds as they lie in the
        files of training: where these were turned (``data.up=z``), new ones are turned in the same way.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the file is no checkpoint, its config names code of others, its weights are of another
            architecture, this machine has no such device, or what :class:`Predictor` raises.
        RuntimeError: the file is damaged.
    """
    from ..training.assembly import build_model, build_task  # bring metrics and loaders as well

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
        parts = ()  # the data set has some, but the model classifies
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
    """Read the config of a checkpoint, whose nodes are calls, so that it is as good as code.

    Args:
        content: what :func:`bixt3d.checkpoint.load_checkpoint` returned.
        origin: its file, for messages.
        trust_code: let it name anything that Python can import, such as a user's own model; else only models, layers,
            tasks, data sets and optimisers of this toolkit and of torch.

    Raises:
        ValueError: it names something else; of that nothing was imported.
    """
    config = from_yaml(content["config"])
    foreign = None if trust_code else foreign_name(config)
    if foreign is not None:
        raise ValueError(
            f"{origin}: its config names {foreign!r}, which is no model, layer, task, data set or optimiser of this "
            "toolkit or of torch; if you wrote or trust that code, give trust_code=True (in Python), trust_code=true "
            "(to evaluate.py) or --trust-code (to the other scripts)."
        )
    return config


def training_points(data: Mapping[str, Any]) -> int:
    """Return how many points a model saw of each cloud.

    Args:
        data: the data node of a config: its ``num_points``, else the default of the class that it names.

    Raises:
        ValueError: neither says it.
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
    """Return the axis that was up in the files of training, as a config's data node says it; None where it does not."""
    up = data.get("up")
    return up if up in ("x", "y", "z") else None


def usable_device(name: str | None) -> str:
    """Return a device after a first use of it; for None a CUDA device where there is one, else the CPU.

    Raises:
        ValueError: this machine or this build of torch has no such device.
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
