"""Build the parts of a run from its config: data set, task, model, augmentation and loaders."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..config import build
from ..datasets.loader import CloudLoader
from ..datasets.transform_base import Transform
from ..datasets.whole import WholeCloudLoader
from ..errors import USER_ERRORS
from ..seams import Task
from ..signatures import full_name, locate, not_taken
from .settings import TrainSettings

# Attributes that the toolkit needs of every model, with the defaults for a model without them.
MODEL_DEFAULTS = {"in_channels": 3, "min_points": 1, "min_batch_size": 1}


def build_dataset(config: Mapping[str, Any]) -> Any:
    """Build the data set of a config.

    Raises:
        ValueError: the data set has no class names.
    """
    dataset = build(config["data"], "data")
    if not getattr(dataset, "classes", ()):
        raise ValueError(
            f"data: {type(dataset).__name__} has no classes; expected their names in label order."
        )
    return dataset


def build_task(config: Mapping[str, Any], classes: Sequence[str], parts: Sequence[str] = ()) -> Task:
    """Build the task of a config for a data set with these classes and parts."""
    return build(config["task"], "task", classes=tuple(classes), parts=tuple(parts))


def build_model(config: Mapping[str, Any], task: Task) -> nn.Module:
    """Build the model of a config for its task, with newly initialised weights.

    Attributes of ``MODEL_DEFAULTS`` that the model lacks are set on it.

    Raises:
        ValueError: the model does not accept the arguments that the task passes.
        TypeError: the model is not a ``torch.nn.Module``.
    """
    node, arguments = config["model"], task.model_arguments()
    if isinstance(node, Mapping) and "_target_" in node:
        target = locate(node["_target_"], "model")
        refused = not_taken(target, arguments)
        if refused:
            raise ValueError(
                f"model: {full_name(target)} does not fit the task {type(task).__name__}, since it takes no "
                f"{' and no '.join(refused)}; choose another model, such as model=bixt_naive for task=classification "
                "and model=bixt_seg_naive for task=part_segmentation."
            )
    model = build(node, "model", **arguments)
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model: expected a torch.nn.Module, {node['_target_']} gives a {type(model).__name__}."
        )
    for name, value in MODEL_DEFAULTS.items():
        if not hasattr(model, name):
            setattr(model, name, value)
    return model


def build_augment(config: Mapping[str, Any], model: Any) -> Any:
    """Build the augmentation of a config; transforms that drop points leave as many as the model needs."""
    augment = build(config["augment"], "augment")
    return augment.for_model(model.min_points) if isinstance(augment, Transform) else augment


def check_fit(model: Any, dataset: Any) -> None:
    """Raise ValueError if the model cannot take the clouds of the data set.

    A data set without the attribute ``normals`` has none.
    """
    if getattr(dataset, "num_points", None) is None:
        raise ValueError(
            f"data: {type(dataset).__name__} has no num_points; expected how many points of each cloud the model sees."
        )
    if dataset.num_points < model.min_points:
        raise ValueError(
            f"data.num_points: the model's grouping needs at least {model.min_points} points (neighbours times the "
            f"reduction before them), got {dataset.num_points}; take more points or fewer neighbours."
        )
    channels = 6 if getattr(dataset, "normals", False) else 3
    if model.in_channels != channels and not (hasattr(model, "tokenizer") or hasattr(model, "encoder")):
        raise ValueError(
            f"model: its in_channels is {model.in_channels}, the data has {channels} channels; make them agree."
        )
    if model.in_channels != channels:
        key = f"model.{'tokenizer' if hasattr(model, 'tokenizer') else 'encoder'}.in_channels"
        raise ValueError(
            f"{key}: the model takes {model.in_channels} channels, the data has {channels}; "
            f"set {key}={channels} or data.normals={str(channels == 3).lower()}."
        )


def check_batch_size(model: Any, settings: TrainSettings) -> None:
    """Raise ValueError if a training batch has fewer clouds than the model's batch norms need."""
    if settings.batch_size < model.min_batch_size:
        raise ValueError(
            f"train.batch_size: the model's batch norms need at least {model.min_batch_size} clouds in a training "
            f"batch, got {settings.batch_size}; if memory is short, use fewer points or a smaller model."
        )


def load_split(dataset: Any, split: str, fabric: Any) -> Any:
    """Load a split in every process in turn, so that files are parsed once and the others read the first one's cache.

    The very first process loads first, then the first process of each other node, since caches may be on a node's
    local disk, then the rest.

    Raises:
        Exception: the error of loading, in each process where it failed, after all processes have tried.
    """
    if fabric.world_size == 1:
        return dataset.load(split)
    mine = 0 if fabric.global_rank == 0 else 1 if fabric.local_rank == 0 else 2
    clouds = failure = None
    for turn in range(3):
        if turn == mine:
            try:
                clouds = dataset.load(split)
            except USER_ERRORS as error:
                failure = error
        fabric.barrier()
    if failure is not None:
        raise failure
    return clouds


def make_loader(
    dataset: Any,
    split: str,
    settings: TrainSettings,
    fabric: Any,
    transform: Any = None,
    num_points: int | None = None,
) -> CloudLoader:
    """Build the loader of a split.

    Args:
        dataset: provides the split.
        split: its name.
        settings: batch sizes, sampling and seed.
        fabric: launched Lightning Fabric.
        transform: augmentation. If given, this is the training loader: shuffled, and without an incomplete last batch.
        num_points: points per cloud, in place of the data set's own number.
    """
    training = transform is not None
    return CloudLoader(
        load_split(dataset, split, fabric),
        batch_size=settings.batch_size if training else settings.eval_batch_size,
        num_points=num_points or dataset.num_points,
        transform=transform,
        shuffle=training,
        drop_last=training,
        sampling=settings.sampling if training else "first",
        seed=settings.seed,
        device=fabric.device,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )


def make_eval_loader(dataset: Any, split: str, task: Task, settings: TrainSettings, fabric: Any) -> Any:
    """Build the loader that evaluates a split: on the first points of each cloud, or on all points.

    Raises:
        ValueError: the task does not allow this ``train.eval_sampling``.
    """
    if settings.eval_sampling not in task.eval_sampling:
        raise ValueError(
            f"train.eval_sampling: expected {' or '.join(task.eval_sampling)} for {type(task).__name__}, got "
            f"{settings.eval_sampling!r}."
        )
    if settings.eval_sampling == "first":
        return make_loader(dataset, split, settings, fabric)
    return WholeCloudLoader(
        load_split(dataset, split, fabric),
        batch_size=settings.eval_batch_size,
        num_points=dataset.num_points,
        device=fabric.device,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )


def points_measured(loader: Any, settings: TrainSettings) -> str:
    """Describe which points of each cloud a loader of :func:`make_eval_loader` evaluates."""
    return "all points" if settings.eval_sampling == "all" else f"the first {loader.num_points:,} points"


def try_batch(model: nn.Module, task: Task, loader: CloudLoader, fabric: Any) -> None:
    """Run two clouds through augmentation and model, so that mismatches are found before the run begins.

    The model runs in evaluation mode. The model, its mode and the state of torch's generator are left unchanged.

    Raises:
        Exception: whatever the transform, the model or the task raises.
    """
    few = copy.copy(loader)
    few.batch_size = min(2, loader.batch_size)
    training = model.training
    with torch.random.fork_rng(devices=[]), torch.no_grad(), fabric.autocast():
        task.predict(model.eval(), next(few.epoch(0)))
    model.train(training)
