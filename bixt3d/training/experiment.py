"""Train and evaluate a model from a config: the entry point of the training scripts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import load_checkpoint, load_weights
from ..config import build, build_settings, from_yaml, to_yaml
from ..engine import Stopped, Trainer, evaluate
from ..errors import steady_output
from ..io.writing import remove_leftovers, write_json, write_text
from ..optim import ExponentialAverage, parameter_groups
from ..reproducibility import derive_seed, environment
from .assembly import (
    build_augment,
    build_dataset,
    build_model,
    build_task,
    check_batch_size,
    check_fit,
    make_eval_loader,
    make_loader,
    points_measured,
    try_batch,
)
from .cost import run_cost
from .curves import draw_curves, read_curves
from .devices import make_fabric, needs_processes, run_again_under_torchrun
from .progress import ConsoleObserver
from .report import minutes_to, print_result, write_report
from .resume import check_run_dir, check_same_data, check_same_run
from .run_folder import RunFolder
from .settings import AUTO, TrainSettings
from .signals import StopRequest
from .transfer import start_from

KEYS = ("augment", "data", "model", "name", "optim", "run_dir", "task", "train")
FEW_STEPS = 200
OPTIM_KEYS = ("decay_all", "groups", "optimizer", "schedule")


def main(config: Mapping[str, Any]) -> None:
    """Run :func:`train` as the training scripts do, with one process per device.

    Args:
        config: see :func:`train`.

    Raises:
        SystemExit: the run was stopped (``128 + signal``), or was done by other processes, with their exit status.
        ValueError, TypeError, RuntimeError, OSError: as :func:`train`.
    """
    settings = _checked_settings(config)
    if needs_processes(settings):
        sys.exit(run_again_under_torchrun(settings.devices))
    try:
        train(config)
    except Stopped as stopped:
        sys.exit(128 + stopped.signal_number)


@steady_output()
def train(config: Mapping[str, Any]) -> Path:
    """Train a model from a config, evaluate it on the test split, and return the run's folder.

    Errors in the config are found before the first step and leave no folder behind. With ``train.resume``, an
    interrupted run is continued. A lock keeps two processes from writing the same run at once.

    Args:
        config: a config as returned by :func:`bixt3d.config.compose`.

    Raises:
        Stopped: a signal (:data:`bixt3d.training.signals.STOPS`) or ``train.max_minutes`` ended the run early. It is
            saved and can be resumed.
        ValueError, TypeError: the config is invalid, or asks for several devices in one process.
        FileNotFoundError: the data or the run to resume does not exist.
        RuntimeError: the loss or a weight became NaN or infinite, or a file is damaged.
    """
    settings = _checked_settings(config)
    if needs_processes(settings):
        raise ValueError(
            f"train.devices: {settings.devices} devices take a process each; start this program with torchrun, or "
            "train with scripts/train_cls.py, which starts them itself."
        )
    fabric = make_fabric(settings)
    with RunFolder(config, settings, fabric) as place:
        return _train(config, settings, fabric, place)


def _train(config: Mapping[str, Any], settings: TrainSettings, fabric: Any, place: RunFolder) -> Path:
    resumed = None
    if place.resumed:
        resumed = load_checkpoint(place.last)
        check_run_dir(config.get("run_dir"), place.last.parent)
        check_same_run(from_yaml(resumed["config"]), config, place.last)

    dataset = build_dataset(config)
    torch.manual_seed(derive_seed(settings.seed))
    parts = getattr(dataset, "parts", ())
    task = build_task(config, dataset.classes, parts)
    _refuse_learnt(task)
    model = build_model(config, task)
    check_fit(model, dataset)
    check_batch_size(model, settings)
    if settings.start_from is not None and resumed is None:
        start_from(settings.start_from, model, config, dataset, fabric)
    train_loader = make_loader(dataset, "train", settings, fabric, transform=build_augment(config, model))
    steps_per_epoch = settings.steps_per_epoch(len(train_loader))
    trained_on = {
        "clouds": len(train_loader.clouds),
        "devices": fabric.world_size,
        "steps_per_epoch": steps_per_epoch,
    }
    if resumed is not None:
        check_same_data(resumed, place.last, classes=dataset.classes, parts=parts, trained_on=trained_on)
    if hasattr(task, "count"):
        task.count(train_loader.clouds.labels)
    try_batch(fabric.to_device(model), task, train_loader, fabric)
    selection = None
    if settings.select_on is not None:
        selection = make_eval_loader(dataset, settings.select_on, task, settings, fabric)
    measured = make_eval_loader(dataset, "test", task, settings, fabric) if settings.measure_test else None

    optim = config["optim"]
    optimizer = build(optim["optimizer"], "optim.optimizer")(_groups(model, optim))
    scheduler = build(optim["schedule"], "optim.schedule")(
        optimizer, epochs=settings.epochs, steps_per_epoch=steps_per_epoch
    )
    ema = None if settings.ema_decay is None else ExponentialAverage(model, settings.ema_decay)
    # the config to save, which reproduces the run whether or not this is a continuation
    recipe = to_yaml({**config, "train": {**config["train"], "resume": None}})

    folder = place.make()
    step = 0 if resumed is None else resumed["progress"]["step"]
    observer: Any = contextlib.nullcontext()
    if fabric.is_global_zero:
        if resumed is None:
            write_text(folder / "config.yaml", recipe)
        for name in ("best.pt", "last.pt"):
            remove_leftovers(folder / name)
        stretch = "environment.json" if resumed is None else f"environment_step{step}.json"
        write_json(folder / stretch, {**environment(), "devices": fabric.world_size})
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"{config['name']}: {parameters / 1e6:.2f} M parameters, {len(train_loader.clouds):,} training clouds, "
            f"{steps_per_epoch} steps an epoch, {fabric.world_size} {fabric.device.type} device(s), "
            f"{settings.precision}\nrun folder: {folder}",
            flush=True,
        )
        if resumed is None and settings.epochs * steps_per_epoch < FEW_STEPS:
            print(
                f"hint: {settings.epochs * steps_per_epoch} steps in all are very few; few clouds need more epochs, "
                f"such as train.epochs={-(-FEW_STEPS // steps_per_epoch)} (data/README.md, a few dozen files)",
                flush=True,
            )
        per_step = settings.batch_size * settings.accumulate * fabric.world_size
        observer = ConsoleObserver(folder, step=step, samples_per_step=per_step, split=settings.select_on)
    with observer as shown:
        trainer = Trainer(
            fabric=fabric,
            model=model,
            task=task,
            optimizer=optimizer,
            scheduler=scheduler,
            settings=settings,
            folder=folder,
            header={
                "config": recipe,
                "classes": list(dataset.classes),
                "parts": list(parts),
                "trained_on": trained_on,
            },
            ema=ema,
            observer=shown,
            compile_mode=settings.compile_mode,
        )
        if resumed is not None:
            trainer.load(resumed, place.last)
        _fit(settings, trainer, train_loader, selection)
    if measured is not None:
        try:
            _measure(config["name"], settings, trainer, measured)
        except KeyboardInterrupt:
            fabric.print(
                f"trained and saved, but not measured; measure with train.resume={folder}", flush=True
            )
            raise
    return folder


def _fit(settings: TrainSettings, trainer: Trainer, train_loader: Any, selection: Any) -> None:
    """Train to the end; if the run is stopped, print how to continue it."""
    try:
        with StopRequest() as stop:
            trainer.fit(train_loader, selection, stop)
    except Stopped:
        if trainer.fabric.is_global_zero:
            more = "" if settings.resume == AUTO else f" and train.resume={trainer.folder}"
            print(
                f"stopped and saved at step {trainer.progress.step}; continue with the same command{more}",
                flush=True,
            )
        raise


def _measure(name: str, settings: TrainSettings, trainer: Trainer, loader: Any) -> None:
    """Evaluate the last and the selected weights on the test split, once each, and write the report."""
    p, fabric, folder = trainer.progress, trainer.fabric, trainer.folder
    results = {"last": evaluate(fabric, trainer.result_model, trainer.task, loader)}
    if settings.select_on is not None:
        best = load_checkpoint(folder / "best.pt")
        load_weights(trainer.result_model, best["model"], folder / "best.pt")
        results["selected"] = evaluate(fabric, trainer.result_model, trainer.task, loader)
    if not fabric.is_global_zero:
        return
    facts = {
        "name": name,
        "split": "test",
        "clouds": len(loader.clouds),
        "points": points_measured(loader, settings),
        "select_on": settings.select_on,
        "selected_epoch": p.best_epoch if settings.select_on else None,
        "steps": p.step,
        "epochs": p.epoch,
        "seed": settings.seed,
        "devices": fabric.world_size,
        "minutes": round(p.seconds / 60, 2),
        "minutes_to": minutes_to(folder / "selection.csv", trainer.task.selects, settings.targets),
        **run_cost(trainer.result_model, trainer.task, loader, folder),
    }
    written = write_report(folder, results, facts, loader.clouds.names)
    draw_curves({name: read_curves(folder)}, folder / "curves.png", against="epoch")
    print_result(results, facts)
    shown = folder / ("best.pt" if settings.select_on else "last.pt")
    print(
        f"checkpoint:       {shown}\n"
        f"curves:           {folder / 'curves.png'}, of train.csv and selection.csv; tensorboard --logdir {folder}\n"
        f"tables, picture:  {', '.join(map(str, written))}\n"
        f"next:             python scripts/evaluate.py {shown} split=test",
        flush=True,
    )


def _groups(model: nn.Module, optim: Mapping[str, Any]) -> list[dict]:
    """Return the parameter groups of the model: those of ``optim.groups``, else by weight decay."""
    decay_all = optim.get("decay_all", False)
    if optim.get("groups") is None:
        return parameter_groups(model, decay_all=decay_all)
    if decay_all:
        raise ValueError(
            "optim.decay_all: optim.groups says by itself what decays; set optim.decay_all=false."
        )
    return build(optim["groups"], "optim.groups")(model)


def _refuse_learnt(task: Any) -> None:
    """Raise ValueError if a task has trainable parameters, since they would not be trained, moved or saved."""
    held = dict(task.named_parameters()) if isinstance(task, nn.Module) else getattr(task, "__dict__", {})
    learnt = [name for name, x in held.items() if isinstance(x, nn.Parameter) and x.requires_grad]
    if learnt:
        raise ValueError(
            f"task: {type(task).__name__} holds parameters to learn ({learnt[0]}), but only those of the model are "
            "trained and saved; put them into the model, which can hand them to the loss with its prediction, or call "
            "requires_grad_(False) on what is not to learn."
        )


def _checked_settings(config: Mapping[str, Any]) -> TrainSettings:
    """Check the keys of a config, and return its settings."""
    _check_keys("config", config, KEYS, optional={"run_dir"})
    _check_keys("optim", config["optim"], OPTIM_KEYS, optional={"decay_all", "groups"})
    return build_settings(TrainSettings, config["train"], "train")


def _check_keys(where: str, node: Mapping[str, Any], keys: Sequence[str], optional: set[str]) -> None:
    for problem, found in (
        ("unknown key", sorted(set(node) - set(keys))),
        ("missing key", sorted(set(keys) - optional - set(node))),
    ):
        if found:
            raise ValueError(f"{where}: {problem} {found[0]!r}; expected {', '.join(keys)}.")
