"""Evaluate a checkpoint. Data set, task and model are rebuilt from the file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import check_labels, load_checkpoint, load_weights
from ..config import build_settings, override
from ..engine import evaluate
from ..inference.loading import ANYWHERE, read_config
from ..inference.strays import WithoutStrays
from ..seams import Task
from ..tasks import Classification
from ..training.assembly import (
    build_dataset,
    build_model,
    build_task,
    check_fit,
    make_eval_loader,
    make_loader,
    points_measured,
)
from ..training.devices import make_fabric
from ..training.report import print_result, write_report
from ..training.settings import TrainSettings
from ..training.transfer import note_changes
from .robustness import RobustnessPlan, RobustnessResult, measure_robustness
from .votes import Voting, check_votes

SPLITS = ("test", "train", "val")


@dataclass(frozen=True)
class Rebuilt:
    """Everything rebuilt from a checkpoint and overrides of its config."""

    config: Mapping[str, Any]
    settings: TrainSettings
    fabric: Any
    dataset: Any
    task: Task
    model: nn.Module


def rebuild(
    path: str | Path, overrides: Sequence[str] = (), *, drop_strays: bool = False, trust_code: bool = False
) -> Rebuilt:
    """Rebuild the data set, task and model of a checkpoint, and load the weights on the device.

    The device settings of the training run are ignored: unless overridden, one device of this machine is used, in
    float32 if it cannot run the precision of training.

    Args:
        path: a ``last.pt`` or ``best.pt``, a run folder (its ``last.pt``), or a ``.safetensors`` file written by
            ``scripts/publish.py``.
        overrides: overrides of the checkpoint's config, such as ``data.root=DIR``.
        drop_strays: whether a classifier sees clouds without their stray points.
        trust_code: allow the checkpoint's config to name your own code, see
            :func:`bixt3d.inference.loading.read_config`. Overrides always may.

    Raises:
        FileNotFoundError: the checkpoint or the data do not exist.
        RuntimeError: a file is damaged.
        ValueError: an override is invalid, the config names untrusted code, the data set has other classes or parts
            than the checkpoint, or ``drop_strays`` is used for a task other than classification.
    """
    content = load_checkpoint(path)
    config = read_config(content, path, trust_code=trust_code)
    config = override({**config, "train": {**config["train"], **ANYWHERE}}, overrides)
    settings = build_settings(TrainSettings, config["train"], "train")
    chosen = any(text.removeprefix("+").startswith("train.precision=") for text in overrides)
    on_cuda = settings.accelerator != "cpu" and torch.cuda.is_available()
    other = settings.precision == "16-mixed" and not on_cuda and not chosen
    if other:
        settings = replace(settings, precision="32-true")
    fabric = make_fabric(settings)
    if other:
        fabric.print("precision: 32-true, since the 16-mixed of the training run needs a CUDA device")
    dataset = build_dataset(config)
    check_labels(path, "classes", content["classes"], dataset.classes)
    parts = getattr(dataset, "parts", ())
    task = build_task(config, dataset.classes, parts)
    if "num_parts" in task.model_arguments():
        check_labels(path, "parts", content["parts"], parts)
    model = build_model(config, task)
    load_weights(model, content["model"], path)
    check_fit(model, dataset)
    note_changes(path, content, model, config, dataset, fabric)
    if drop_strays:
        if not isinstance(task, Classification):
            raise ValueError(
                f"drop_strays: expected a classification task, got {type(task).__name__}; leave it out."
            )
        model = WithoutStrays(model)
    return Rebuilt(config, settings, fabric, dataset, task, fabric.to_device(model))


def evaluate_checkpoint(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    split: str = "test",
    drop_strays: bool = False,
    trust_code: bool = False,
    out: str | Path | None = None,
    votes: int = 1,
    seed: int = 0,
) -> Any:
    """Evaluate a checkpoint on a split, print the result and write a report.

    Args:
        path, overrides, drop_strays, trust_code: see :func:`rebuild`.
        split: ``"test"``, ``"train"`` or ``"val"``.
        out: folder for the report; None to write nothing.
        votes: number of predictions to average per cloud (:class:`bixt3d.evaluation.votes.Voting`). If above 1, the
            result of voting is printed and written in addition, under its own name.
        seed: seed of the votes.

    Returns:
        The task's result for a single prediction per cloud.

    Raises:
        ValueError: the split is unknown, or a number is out of range.
        For further errors, see :func:`rebuild`.
    """
    _check_split(split)
    check_votes(votes, seed)
    made = rebuild(path, overrides, drop_strays=drop_strays, trust_code=trust_code)
    loader = make_eval_loader(made.dataset, split, made.task, made.settings, made.fabric)
    result = evaluate(made.fabric, made.model, made.task, loader)
    voted = {}
    if votes > 1:
        task: Any = Voting(made.task, votes, seed)
        voted[f"{votes} votes"] = evaluate(made.fabric, made.model, task, loader)
    if made.fabric.is_global_zero:
        facts = {
            "name": made.config["name"],
            "split": split,
            "clouds": len(loader.clouds),
            "points": points_measured(loader, made.settings),
            "checkpoint": str(path),
            **({"drop_strays": True} if drop_strays else {}),
            **({"seed": seed} if voted else {}),
        }
        print_result({"checkpoint": result, **voted}, facts)
        if voted:
            print(
                "  votes: a mean over stretched copies of each cloud; compare it only with figures of as many votes"
            )
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            write_report(Path(out), {**voted, "checkpoint": result}, facts, loader.clouds.names)
            print(f"report: {out}")
    return result


def evaluate_robustness(
    path: str | Path,
    plan: RobustnessPlan,
    overrides: Sequence[str] = (),
    *,
    split: str = "test",
    drop_strays: bool = False,
    trust_code: bool = False,
    out: str | Path | None = None,
) -> RobustnessResult:
    """Evaluate a classifier on corrupted clouds and on fewer points, print the result and write a report.

    Args:
        path, overrides, split, drop_strays, trust_code: see :func:`evaluate_checkpoint`.
        plan: corruptions, severities and numbers of points to evaluate.
        out: folder for ``robustness.csv``, ``robustness.json`` and ``robustness.png``; None to write nothing.

    Raises:
        ValueError: the checkpoint is not a classifier, or the split is unknown.
        For further errors, see :func:`rebuild`.
    """
    _check_split(split)
    made = rebuild(path, overrides, drop_strays=drop_strays, trust_code=trust_code)
    if not isinstance(made.task, Classification):
        raise ValueError(
            f"corruption, points: robustness is measured for classification, got {type(made.task).__name__}; leave "
            "them out to measure this checkpoint on clean clouds."
        )

    def loader(num_points: int | None = None) -> Any:
        return make_loader(made.dataset, split, made.settings, made.fabric, num_points=num_points)

    result = measure_robustness(made.fabric, made.model, made.task, loader, plan)
    if made.fabric.is_global_zero:
        facts = {
            "name": made.config["name"],
            "split": split,
            "clouds": result.clouds,
            "points": made.dataset.num_points,
            "seed": plan.seed,
            "checkpoint": str(path),
            **({"drop_strays": True} if drop_strays else {}),
        }
        result.print(facts)
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            print(f"written: {', '.join(map(str, result.write(Path(out), facts)))}")
    return result


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
