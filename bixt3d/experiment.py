"""From a config to a trained and measured model: what the scripts call."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .allocator import keep_freed_memory
from .checkpoint import load_checkpoint, load_weights
from .config import build, build_settings, from_yaml, override, to_yaml
from .datasets.loader import CloudLoader
from .engine import LoopSettings, Stopped, Trainer, evaluate
from .optim import exponential_average, parameter_groups
from .report import print_result, write_report
from .reproducibility import derive_seed, environment
from .signals import StopRequest

ACCELERATORS = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("16-mixed", "32-true", "bf16-mixed")
SPLITS = ("test", "train", "val")
KEYS = ("augment", "data", "model", "name", "optim", "run_dir", "task", "train")
# What may differ between a run and its continuation: nothing that changes a number it computes.
FREE_ON_RESUME = (
    "data.root",
    "run_dir",
    "train.checkpoint_every",
    "train.keep_freed_memory",
    "train.max_steps",
    "train.resume",
)


@dataclass(frozen=True)
class TrainSettings(LoopSettings):
    """The ``train`` node of a config.

    Args:
        batch_size: clouds in a training batch, on each device; an incomplete last batch is left out.
        eval_batch_size: clouds in an evaluation batch.
        sampling: which of the stored points a training cloud keeps: ``"first"`` or ``"random"``.
        ema_decay: decay of the running average of the weights; null for none.
        compile: run the model through ``torch.compile``.
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: devices on this machine; under ``torchrun`` its settings count.
        select_on: the split that selects ``best.pt``: ``"val"``, or null to select nothing. ``"test"`` is
            possible for comparison with papers that do so, and is said with every result.
        measure_test: measure on the test split at the end; false for searches, which must not look at it.
        keep_freed_memory: see :func:`bixt3d.allocator.keep_freed_memory`; changes speed, never a result.
        resume: run folder to continue; null to start anew.
    """

    batch_size: int = 32
    eval_batch_size: int = 64
    sampling: str = "first"
    ema_decay: float | None = None
    compile: bool = False
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    select_on: str | None = "val"
    measure_test: bool = True
    keep_freed_memory: bool = True
    resume: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "eval_batch_size", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        for name, valid in (
            ("precision", PRECISIONS),
            ("accelerator", ACCELERATORS),
            ("sampling", ("first", "random")),
            ("select_on", (None, "test", "val")),
        ):
            if getattr(self, name) not in valid:
                shown = ", ".join("null" if v is None else v for v in valid)
                raise ValueError(f"{name}: expected one of {shown}, got {getattr(self, name)!r}.")


def train(config: Mapping[str, Any]) -> Path:
    """Train what a config describes, measure it on the test split, and return the run's folder.

    Everything that can be wrong with the config is found before the first step. Called again with
    ``train.resume`` it continues the run.
    """
    unknown = sorted(set(config) - set(KEYS))
    if unknown:
        raise ValueError(f"config: unknown key {unknown[0]!r}; expected one of {', '.join(KEYS)}.")
    settings = build_settings(TrainSettings, config["train"], "train")
    _relaunch_on_several_devices(settings)
    fabric = make_fabric(settings)

    resumed = None
    if settings.resume is not None:
        resumed = load_checkpoint(Path(settings.resume) / "last.pt")
        _check_same_run(from_yaml(resumed["config"]), config)
    folder = _run_folder(config, settings, fabric)

    dataset = build(config["data"], "data")
    torch.manual_seed(derive_seed(settings.seed))
    model = build_model(config, dataset.classes)
    check_fit(model, dataset)
    task = build(config["task"], "task", classes=dataset.classes)
    train_loader = make_loader(dataset, "train", settings, fabric, transform=build(config["augment"], "augment"))
    selection = make_loader(dataset, settings.select_on, settings, fabric) if settings.select_on else None

    optim = config["optim"]
    groups = parameter_groups(model, decay_all=optim.get("decay_all", False))
    optimizer = build(optim["optimizer"], "optim.optimizer")(groups)
    steps_per_epoch = len(train_loader) // settings.accumulate
    scheduler = build(optim["schedule"], "optim.schedule")(
        optimizer, epochs=settings.epochs, steps_per_epoch=max(steps_per_epoch, 1)
    )

    rank_zero = fabric.is_global_zero
    observer = None
    step = 0 if resumed is None else resumed["progress"]["step"]
    if rank_zero:
        from .progress import ConsoleObserver

        (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        stretch = "environment.json" if resumed is None else f"environment_step{step}.json"
        (folder / stretch).write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")
        observer = ConsoleObserver(
            folder, step=step, samples_per_step=settings.batch_size * settings.accumulate * fabric.world_size
        )
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"{config['name']}: {parameters / 1e6:.2f} M parameters, {len(train_loader.clouds):,} training clouds, "
            f"{steps_per_epoch} steps an epoch, {fabric.world_size} × {fabric.device.type}, "
            f"{settings.precision}\nrun folder: {folder}",
            flush=True,
        )
    trainer = Trainer(
        fabric=fabric,
        model=model,
        task=task,
        optimizer=optimizer,
        scheduler=scheduler,
        settings=settings,
        folder=folder,
        header={"config": to_yaml(config), "classes": list(dataset.classes)},
        ema=None if settings.ema_decay is None else exponential_average(model, settings.ema_decay),
        observer=observer,
        compile_model=settings.compile,
    )
    if resumed is not None:
        trainer.load(resumed, folder / "last.pt")
    try:
        with StopRequest() as stop:
            trainer.fit(train_loader, selection, stop)
    except Stopped as stopped:
        if rank_zero:
            print(
                f"stopped and saved at step {trainer.progress.step}; continue with the same command and "
                f"train.resume={folder}",
                flush=True,
            )
        sys.exit(128 + stopped.signal_number)
    finally:
        if observer is not None:
            observer.close()
    if settings.measure_test:
        _measure(config, settings, fabric, dataset, trainer, folder)
    return folder


def _measure(
    config: Mapping[str, Any],
    settings: TrainSettings,
    fabric: Any,
    dataset: Any,
    trainer: Trainer,
    folder: Path,
) -> None:
    """Evaluate the last and the selected weights on the test split, once each, and report them."""
    loader = make_loader(dataset, "test", settings, fabric)
    p = trainer.progress
    results = {"last": evaluate(fabric, trainer.result_model, trainer.task, loader)}
    if settings.select_on is not None:
        best = load_checkpoint(folder / "best.pt")
        load_weights(trainer.result_model, best["model"], folder / "best.pt")
        results["selected"] = evaluate(fabric, trainer.result_model, trainer.task, loader)
    if not fabric.is_global_zero:
        return
    facts = {
        "name": config["name"],
        "split": "test",
        "clouds": len(loader.clouds),
        "select_on": settings.select_on,
        "selected_epoch": p.best_epoch if settings.select_on else None,
        "steps": p.step,
        "epochs": p.epoch,
        "seed": settings.seed,
        "minutes": round(p.seconds / 60, 2),
    }
    write_report(folder, results, facts)
    print_result(results, facts)
    shown = "best.pt" if settings.select_on else "last.pt"
    print(
        f"checkpoint:       {folder / shown}\n"
        f"curves:           {folder / 'train.csv'}, {folder / 'selection.csv'}; tensorboard --logdir {folder}\n"
        f"confusion matrix: {folder / 'confusion.png'} (.csv), per class: {folder / 'per_class.csv'}\n"
        f"next:             python scripts/evaluate.py {folder / shown} split=test",
        flush=True,
    )


def evaluate_checkpoint(path: str | Path, assignments: Sequence[str] = (), out: str | Path | None = None) -> Any:
    """Rebuild everything from a checkpoint alone and measure it on a split.

    Args:
        path: a ``last.pt`` or ``best.pt``, or a run folder (its ``last.pt``).
        assignments: ``split=test`` (the default), and overrides of the checkpoint's config such as
            ``data.root=DIR`` or ``train.eval_batch_size=16``.
        out: folder for the report; nothing is written where it is None.

    Returns:
        The task's result.
    """
    content = load_checkpoint(path)
    given = dict(a.partition("=")[::2] for a in assignments)
    split = given.get("split", "test")
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}.")
    config = override(from_yaml(content["config"]), [a for a in assignments if not a.startswith("split=")])
    settings = build_settings(TrainSettings, config["train"], "train")
    fabric = make_fabric(settings)
    dataset = build(config["data"], "data")
    if list(dataset.classes) != content["classes"]:
        raise ValueError(
            f"{path}: was trained on other classes ({len(content['classes'])}, first {content['classes'][0]!r}) than "
            f"the data set has ({len(dataset.classes)}, first {dataset.classes[0]!r}); give the data it was "
            "trained on with data.root=DIR."
        )
    model = build_model(config, dataset.classes)
    load_weights(model, content["model"], path)
    check_fit(model, dataset)
    task = build(config["task"], "task", classes=dataset.classes)
    loader = make_loader(dataset, split, settings, fabric)
    result = evaluate(fabric, fabric.to_device(model), task, loader)
    if fabric.is_global_zero:
        facts = {"name": config["name"], "split": split, "clouds": len(loader.clouds), "checkpoint": str(path)}
        print_result({"checkpoint": result}, facts)
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            write_report(Path(out), {"checkpoint": result}, facts)
            print(f"report: {out}")
    return result


def build_model(config: Mapping[str, Any], classes: Sequence[str]) -> nn.Module:
    """Build the config's model for these classes, with fresh weights."""
    return build(config["model"], "model", num_classes=len(classes))


def check_fit(model: Any, dataset: Any) -> None:
    """Raise where the model cannot take the data set's clouds."""
    if dataset.num_points < model.min_points:
        raise ValueError(
            f"data.num_points: the model's grouping needs at least {model.min_points} points (neighbours times the "
            f"reduction before them), got {dataset.num_points}; take more points or fewer neighbours."
        )
    channels = 6 if dataset.normals else 3
    if model.in_channels != channels:
        raise ValueError(
            f"model.tokenizer.in_channels: the model takes {model.in_channels} channels, the data has {channels}; "
            f"set model.tokenizer.in_channels={channels} or data.normals={str(channels == 3).lower()}."
        )


def make_loader(
    dataset: Any, split: str, settings: TrainSettings, fabric: Any, transform: Any = None
) -> CloudLoader:
    """Make the loader of a split; the training split is shuffled, augmented and cut into full batches."""
    training = transform is not None
    return CloudLoader(
        dataset.load(split),
        batch_size=settings.batch_size if training else settings.eval_batch_size,
        num_points=dataset.num_points,
        transform=transform,
        shuffle=training,
        drop_last=training,
        sampling=settings.sampling if training else "first",
        seed=settings.seed,
        device=fabric.device,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )


def make_fabric(settings: TrainSettings) -> Any:
    """Launch Lightning Fabric on the devices asked for, or on those of ``torchrun``."""
    from lightning.fabric import Fabric

    if settings.keep_freed_memory:
        keep_freed_memory()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", settings.devices))
    nodes = int(os.environ.get("WORLD_SIZE", local)) // local
    if settings.precision == "16-mixed" and not torch.cuda.is_available():
        raise ValueError("train.precision: 16-mixed needs a CUDA device; use bf16-mixed or 32-true here.")
    if settings.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "train.accelerator: expected a CUDA device, but torch sees none; use train.accelerator=cpu, or install "
            "a torch built for this machine's driver."
        )
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=local,
        num_nodes=nodes,
        strategy="ddp" if local * nodes > 1 else "auto",
        precision=settings.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def _relaunch_on_several_devices(settings: TrainSettings) -> None:
    """Start the same command again under torchrun where it asks for several devices."""
    if settings.devices > 1 and "LOCAL_RANK" not in os.environ:
        sys.stdout.flush()
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={settings.devices}"]
        os.execv(sys.executable, [sys.executable, *launcher, *sys.orig_argv[1:]])


def _run_folder(config: Mapping[str, Any], settings: TrainSettings, fabric: Any) -> Path:
    """Return the folder of the run, the same on every rank; made where it is new."""
    folder = settings.resume or config.get("run_dir")
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
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check_same_run(saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise where a continuation would compute something else than the run it continues."""
    before, now = _flatten(saved), _flatten(given)
    differing = sorted(
        k for k in before.keys() | now.keys() if before.get(k) != now.get(k) and k not in FREE_ON_RESUME
    )
    if differing:
        key = differing[0]
        raise ValueError(
            f"train.resume: the run was started with {key}={before.get(key)}, got {now.get(key)} "
            f"({len(differing)} settings differ); give the settings of the run (its config.yaml), or start a new run."
        )


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        return {k: v for key, value in node.items() for k, v in _flatten(value, f"{prefix}{key}.").items()}
    return {prefix.removesuffix("."): node}
