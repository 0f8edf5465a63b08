"""Start from the weights of another run, and find the settings with which they compute something else."""

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

TOLERANCE = 1e-4  # relative to the largest output: far above rounding, far below the effect of a setting
NOISE = 0.02  # standard deviation of noise on the weights, so that zero-initialised ones hide no difference
DEFAULT = "(its default)"  # stands for the value of a key that a config does not set


def start_from(path: str, model: nn.Module, config: Mapping[str, Any], dataset: Any, fabric: Any) -> None:
    """Load the weights of a checkpoint into a new model as far as they fit, and print what does not.

    Weights that depend on the classes or parts are loaded only if these are the same. Settings that make the weights
    compute something else are printed too, see :func:`note_changes`.

    Args:
        path: see :func:`bixt3d.checkpoint.load_checkpoint`.
        model: the model of ``config``, changed in place.
        config: config of the run.
        dataset: data set of the run.
        fabric: launched Lightning Fabric, which prints on rank 0.

    Raises:
        ValueError: no tensor fits. ``load_checkpoint`` raises further errors.
    """
    given = load_checkpoint(path)
    same_classes = list(given["classes"]) == list(dataset.classes)
    same_parts = list(given["parts"]) == list(getattr(dataset, "parts", ()))
    # for other classes or parts, these may have the right shape but mean something else
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
    """Count tensors by the first two components of their names: ``encoder.blocks (84 of 96 tensors)``."""
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
    """Print the :func:`changed_settings` of a checkpoint, if any.

    They may be intended, but shapes do not show them. A checkpoint without a config is not checked.

    Args:
        path: file of the checkpoint, for the message.
        given: the loaded checkpoint.
        model: model of the run, on the CPU.
        config: config of the run.
        dataset: data set of the run.
        fabric: launched Lightning Fabric, which prints on rank 0.
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
    """List the settings with which weights compute something else, in evaluation, than in the model of their training.

    There is no fixed list of such settings. Instead, each setting that differs is tried: the model is built again with
    the value from training in that setting alone, and given the same weights and points. If its output differs, the
    setting is listed. So is a setting that cannot be tried alone. A setting that changes the shapes of tensors is left
    out, since those tensors are newly initialised and already reported.

    Args:
        model: model of the run, on the CPU. It is left unchanged, as is the state of torch's generator.
        config: config of the run.
        trained: the ``model`` node of the config that the weights were trained with.
        dataset: data set of the run.

    Returns:
        One line per setting, with its key and both values.
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
            # a checkpoint's config may name any code; call only what needs no trust
            tried = foreign_name({key.rpartition(".")[2]: before}) is None
            if not (tried and _computes(expected, {**config, "model": node}, state, task, batch)):
                changes.append(f"model.{key} was {_shown(before)}, is {_shown(now)}")
    return changes


def _swaps(now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any, dict]]:
    """Yield each key in which two nodes differ, both values, and ``now`` with the value of ``before`` for that key."""
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
    """Whether the model of a config makes the expected prediction, or has tensors of other shapes."""
    try:
        model = build_model(config, task)
        own = model.state_dict()
        if any(name not in own or own[name].shape != value.shape for name, value in state.items()):
            return True
        difference = (_prediction(model, state, task, batch) - expected).abs().max()
    except Exception:  # a trial must never end the run
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
