"""Weights of another run: which of them a model takes, and which settings make them compute something else there."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import load_checkpoint, load_matching_weights
from ..config import from_yaml
from ..datasets.loader import Batch
from ..seams import Task
from ..signatures import foreign_name
from .assembly import build_model, build_task

TOLERANCE = 1e-4  # of the largest output: far above rounding, far below what a setting changes
NOISE = 0.02  # so that a head that starts from zeros hides nothing
DEFAULT = "(its default)"  # stands for the value of a key that a config does not write


def start_from(path: str, model: nn.Module, config: Mapping[str, Any], dataset: Any, fabric: Any) -> None:
    """Give a new model the weights of a checkpoint that fit it; say how many, what starts anew and what else differs.

    Args:
        path: see :func:`bixt3d.checkpoint.load_checkpoint`.
        model: the model of ``config``, which is changed.
        config: of the run.
        dataset: of the run.
        fabric: prints, on one rank.

    Raises:
        ValueError: nothing fits; and whatever ``load_checkpoint`` raises.
    """
    given = load_checkpoint(path)
    same_classes = list(given["classes"]) == list(dataset.classes)
    same_parts = list(given["parts"]) == list(getattr(dataset, "parts", ()))
    # of the same size, these would be taken and mean other things
    fits = {"category": same_classes, "head": same_classes and same_parts}
    state = {k: v for k, v in given["model"].items() if all(fits.get(word, True) for word in k.split("."))}
    anew = load_matching_weights(model, state, path)
    sizes = {name: value.numel() for name, value in model.state_dict().items()}
    taken = 1 - sum(sizes[name] for name in anew) / sum(sizes.values())
    fabric.print(
        f"starts from {path}: {len(sizes) - len(anew)} of {len(sizes)} tensors, {taken:.0%} of the numbers"
        + ("; anew: " + ", ".join(_by_part(anew, sizes)) if anew else "")
    )
    if taken < 0.5:
        fabric.print(
            f"WARNING: most of the model is not in {path} and starts anew; give it the settings that these weights "
            "were trained with: those in the config.yaml beside them, or in the command on their card."
        )
    note_changes(path, given, model, config, dataset, fabric)


def _by_part(names: Iterable[str], all_names: Iterable[str]) -> list[str]:
    """Sum tensors up by the first two words of their names: ``encoder.blocks (84 of 96 tensors)``."""
    counted, there = (Counter(".".join(name.split(".")[:2]) for name in some) for some in (names, all_names))
    return [f"{key} ({n} of {there[key]} tensors)" if there[key] > 1 else key for key, n in counted.items()]


def note_changes(
    path: str | Path,
    given: Mapping[str, Any],
    model: nn.Module,
    config: Mapping[str, Any],
    dataset: Any,
    fabric: Any,
) -> None:
    """Print the :func:`changed_settings` of a checkpoint, if any: they may be meant, but no shape tells of them.

    Nothing is printed of what is ``given`` without a config.
    """
    if not given.get("config"):
        return
    changes = changed_settings(model, config, from_yaml(given["config"])["model"], dataset)
    if changes:
        fabric.print(
            f"note: {path} was trained with other settings of the model, so its weights compute something else here: "
            + "; ".join(changes)
        )


def changed_settings(
    model: nn.Module, config: Mapping[str, Any], trained: Mapping[str, Any], dataset: Any
) -> list[str]:
    """Say which settings make weights compute something else in evaluation than the model they were trained in.

    There is no list of such settings: each that differs is tried. The model is built once more with what the weights
    were trained with, in that setting alone, gets the same weights and sees the same points. A setting that changes
    the shape of tensors is left out, since these start anew, which is said; one that cannot be tried alone is named.

    Args:
        model: of the run, on the CPU; left as it is, as is the state of torch's generator.
        config: of the run.
        trained: the ``model`` node of the config that the weights were trained with.
        dataset: of the run.

    Returns:
        For each setting its key and both values.
    """
    swaps = list(_swaps(config["model"], trained))
    if not swaps:
        return []
    task = build_task(config, dataset.classes, getattr(dataset, "parts", ()))
    learnt = dict(model.named_parameters(remove_duplicate=False))
    changes = []
    with torch.random.fork_rng(devices=[]):
        state = {
            name: value + NOISE * torch.randn_like(value) if name in learnt else value
            for name, value in model.state_dict().items()
        }
        points = torch.rand(1, dataset.num_points, int(model.in_channels)) * 2 - 1  # type: ignore[arg-type]
        zero = torch.zeros(1, dtype=torch.int64)
        batch = Batch(points, zero, zero.expand(points.shape[:2]), zero)
        expected = _prediction(copy.deepcopy(model), state, task, batch)
        for key, now, before, node in swaps:
            # what the config of the weights calls is not called here unless any checkpoint may name it
            tried = foreign_name({key.rpartition(".")[2]: before}) is None
            if not (tried and _computes(expected, {**config, "model": node}, state, task, batch)):
                changes.append(f"model.{key} was {_shown(before)}, is {_shown(now)}")
    return changes


def _swaps(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, dict]]:
    """Yield each key in which two nodes differ, both values, and ``now`` with the other value in that place."""
    for key in sorted(now.keys() | before.keys()):
        here, there = now.get(key, DEFAULT), before.get(key, DEFAULT)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            for inner, *values, node in _swaps(here, there):
                yield f"{key}.{inner}", *values, {**now, key: node}
        elif here != there:
            rest = {k: v for k, v in now.items() if k != key}
            yield key, here, there, {**rest, key: there} if key in before else rest


def _computes(
    expected: Tensor,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    task: Task,
    batch: Batch,
) -> bool:
    """Whether the model of a config makes this prediction too, or has tensors of other shapes, which start anew."""
    try:
        model = build_model(config, task)
        own = model.state_dict()
        if any(name not in own or own[name].shape != value.shape for name, value in state.items()):
            return True
        difference = (_prediction(model, state, task, batch) - expected).abs().max()
    except Exception:  # whatever it is, a trial must not end the run
        return False
    return bool(difference <= TOLERANCE * expected.abs().max())


def _prediction(model: nn.Module, state: Mapping[str, Tensor], task: Task, batch: Batch) -> Tensor:
    model.load_state_dict(state)
    with torch.no_grad():
        return task.predict(model.eval(), batch)[0]


def _shown(value: Any) -> Any:
    return (
        value["_target_"].rpartition(".")[2] if isinstance(value, Mapping) and "_target_" in value else value
    )
