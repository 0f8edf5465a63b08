"""The training loop, shared by all tasks. It imports no model and no data set: the caller passes them in."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from .agreement import Agreement
from .checkpoint import load_weights, save_checkpoint
from .divergence import check_finite
from .reproducibility import derive_seed
from .seams import Average, Loader, Observer, Result, Stop, Task

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass(frozen=True)
class LoopSettings:
    """How long to train, and how often to evaluate, save and log.

    Args:
        epochs: passes over the training split. The learning-rate schedule spans all of them.
        max_steps: stop after this many optimiser steps, whatever ``epochs`` says; null for no limit. The weights are
            evaluated there as at the end of an epoch, and that evaluation still counts if the run is continued.
        max_minutes: save and exit after this many minutes, as on SIGTERM, to be resumed later; null for no limit.
        accumulate: number of batches whose gradients are accumulated for one optimiser step.
        clip_norm: maximum norm of the gradient; null for no clipping.
        evaluate_every: epochs between two evaluations on the selection split.
        checkpoint_every: optimiser steps between two saves of ``last.pt``, which is also saved after every evaluation.
        log_every: optimiser steps between two rows of ``train.csv``.
        seed: seed of the initial weights, data order, augmentation, dropout and stochastic depth.
    """

    epochs: int = 300
    max_steps: int | None = None
    max_minutes: float | None = None
    accumulate: int = 1
    clip_norm: float | None = 1.0
    evaluate_every: int = 1
    checkpoint_every: int = 500
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "evaluate_every", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps: expected at least 1 or null, got {self.max_steps}.")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ValueError(f"max_minutes: expected a positive number or null, got {self.max_minutes}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected a positive number or null, got {self.clip_norm}.")

    def steps_per_epoch(self, batches: int) -> int:
        """Return the number of optimiser steps in an epoch of this many batches; an incomplete last step is dropped.

        Raises:
            ValueError: an epoch has fewer batches than one step needs.
        """
        if batches < self.accumulate:
            raise ValueError(
                f"train.accumulate: expected at most {batches}, the batches of an epoch, got {self.accumulate}."
            )
        return batches // self.accumulate


@dataclass
class Progress:
    """Position of a run: together with the seed, all that is needed to draw the same random numbers again."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches done in the current epoch
    best: float = -math.inf
    best_epoch: int = 0
    seconds: float = 0.0  # spent on training and selection, summed over interruptions

    @property
    def epoch_number(self) -> int:
        """Epoch of the last step, counted from 1, as in logs and results."""
        return self.epoch + (self.batch > 0)


class Stopped(Exception):
    """Raised when training was asked to stop, after everything is saved."""

    def __init__(self, signal_number: int):
        super().__init__(signal_number)
        self.signal_number = signal_number


@torch.no_grad()
def evaluate(fabric: Fabric, model: nn.Module, task: Task, loader: Loader) -> Result:
    """Evaluate a model on all clouds of a loader, and return the result of the task's meter.

    Each cloud is counted once over all devices.

    Args:
        fabric: Lightning Fabric, for precision and device.
        model: the bare module, not wrapped by Fabric. It is evaluated in eval mode and its mode is restored.
        task: makes the predictions and provides the meter.
        loader: batches of the split.
    """
    if fabric.world_size > 1:
        # the batch norms of each rank have seen other batches; a checkpoint holds the statistics of rank 0
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)
    training = model.training
    model.eval()
    meter = task.meter().to(fabric.device)
    with fabric.autocast():
        for batch in loader.epoch(0):
            meter.update(*task.predict(model, batch))
    model.train(training)
    return meter.compute()


class Trainer:
    """Train a model, save checkpoints, and resume an interrupted run bit for bit.

    Args:
        fabric: launched Lightning Fabric, for device, precision and distribution.
        model: the bare module, on any device.
        task: prediction, loss and meter.
        optimizer, scheduler: from torch, over the model's parameters. The scheduler advances after every step.
        ema: running average of the model (:class:`bixt3d.optim.ExponentialAverage`), or None. If given, the average
            is what is evaluated, selected and saved as the model.
        settings: see :class:`LoopSettings`.
        folder: the run's folder, which must exist.
        header: further entries of every checkpoint, such as the config and the class names.
        observer: notified of steps and evaluations, for logs and progress bars (on rank 0), or None.
        compile_mode: mode of ``torch.compile`` for the forward and backward pass; None for eager mode.
    """

    def __init__(
        self,
        *,
        fabric: Fabric,
        model: nn.Module,
        task: Task,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        settings: LoopSettings,
        folder: Path,
        header: Mapping[str, Any],
        ema: Average | None = None,
        observer: Observer | None = None,
        compile_mode: str | None = None,
    ):
        self.fabric, self.task, self.settings = fabric, task, settings
        self.folder, self.header, self.observer = folder, dict(header), observer
        self.model, self.ema, self.scheduler = model, ema, scheduler
        self.optimizer, self.progress = optimizer, Progress()
        self.lr = 0.0  # of the last step, for the first parameter group
        running: Any = model if compile_mode is None else torch.compile(model, mode=compile_mode)
        self._compiled = compile_mode is not None
        self._wrapped, self._optimizer = fabric.setup(running, optimizer)
        if ema is not None:
            ema.to(fabric.device)

    @property
    def result_model(self) -> nn.Module:
        """The model to evaluate and save: the running average if there is one, else the model itself."""
        return self.model if self.ema is None else self.ema.module

    def fit(self, loader: Loader, selection: Loader | None = None, stop: Stop | None = None) -> None:
        """Train to the end, or until ``stop`` asks to stop.

        Args:
            loader: training batches.
            selection: loader of the selection split, which decides on ``best.pt``; None to select nothing.
            stop: for example a :class:`bixt3d.training.signals.StopRequest`; None to never stop early.

        Raises:
            Stopped: ``stop`` asked for it, or ``max_minutes`` have passed. The run is saved first.
            RuntimeError: the loss or a weight became NaN or infinite.
        """
        s, p = self.settings, self.progress
        steps_per_epoch = s.steps_per_epoch(len(loader))
        batches_per_epoch = steps_per_epoch * s.accumulate
        end = min(s.epochs * steps_per_epoch, s.max_steps or s.epochs * steps_per_epoch)
        started = time.perf_counter() - p.seconds
        deadline = time.perf_counter() + 60 * (s.max_minutes or math.inf)
        agreement = Agreement(self.fabric)
        self.model.train()
        while p.step < end:
            batches = loader.epoch(p.epoch, start=p.batch)
            while p.batch < batches_per_epoch and p.step < end:
                loss = self._step(list(itertools.islice(batches, s.accumulate)))
                p.step, p.batch = p.step + 1, p.batch + s.accumulate
                p.seconds = time.perf_counter() - started
                done = p.batch == batches_per_epoch or p.step == end
                asked = None if stop is None else stop.requested
                if asked is None and time.perf_counter() >= deadline:
                    asked = signal.SIGTERM
                # do not stop after the last step: that would skip the final evaluation
                stops = None if p.step == end else agreement.on(p.step, asked)
                saves = done or stops is not None or p.step % s.checkpoint_every == 0
                # reading the loss synchronises with the device: only now and then, and before last.pt is replaced
                if saves or p.step % s.log_every == 0:
                    check_finite("loss", [loss], p.step, self.folder)
                if saves:  # the loss predates the step, which itself may have ruined the weights
                    learnt = [x for x in self.model.parameters() if x.requires_grad]
                    check_finite("weights", learnt, p.step, self.folder)
                if self.observer is not None:
                    self.observer.stepped(self, loss, end)
                if stops is not None:
                    self.save()
                    raise Stopped(stops)
                if saves and not done:
                    self.save()
            if p.batch == batches_per_epoch:
                p.epoch, p.batch = p.epoch + 1, 0
            if p.epoch % s.evaluate_every == 0 or p.step == end:
                if selection is not None:
                    self._select(selection)
                    p.seconds = time.perf_counter() - started
                self.save()

    def _step(self, batches: list[Any]) -> Tensor:
        """Take one optimiser step over these batches; return the mean loss, detached."""
        s = self.settings
        # Makes dropout and stochastic depth functions of (seed, step, rank), so no generator state need be saved.
        torch.manual_seed(derive_seed(s.seed, self.progress.step, self.fabric.global_rank))
        if self._compiled:  # from here on, CUDA graphs may overwrite the outputs of the previous step
            torch.compiler.cudagraph_mark_step_begin()
        total = torch.zeros((), device=self.fabric.device)
        for i, batch in enumerate(batches):
            with self.fabric.no_backward_sync(self._wrapped, enabled=i < len(batches) - 1):
                prediction, target = self.task.predict(self._wrapped, batch)
                loss = self.task.loss(prediction, target) / len(batches)
                self.fabric.backward(loss)
            total += loss.detach()
        if s.clip_norm is not None:
            self.fabric.clip_gradients(
                self._wrapped, self._optimizer, max_norm=s.clip_norm, error_if_nonfinite=False
            )
        self.lr = float(self.scheduler.get_last_lr()[0])
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return total

    def _select(self, selection: Loader) -> None:
        result = evaluate(self.fabric, self.result_model, self.task, selection).summary()
        p, figure = self.progress, result[self.task.selects]
        if better := figure > p.best:
            p.best, p.best_epoch = figure, p.epoch_number
            if self.fabric.is_global_zero:
                save_checkpoint(self.folder / "best.pt", self._content(selection=dict(result)))
        if self.observer is not None:
            self.observer.selected(self, result, better)

    def _content(self, **more: Any) -> dict[str, Any]:
        model = self.result_model.state_dict()
        return {**self.header, "progress": asdict(self.progress), "model": model, **more}

    def save(self) -> None:
        """Write ``last.pt``: :attr:`result_model` and everything needed to resume."""
        if self.fabric.is_global_zero:
            resume = {
                "model": self.model.state_dict(),
                "averaged": None if self.ema is None else self.ema.updates,  # the average is the model above
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            save_checkpoint(self.folder / "last.pt", self._content(resume=resume))
        self.fabric.barrier()

    def load(self, content: Mapping[str, Any], origin: Path) -> None:
        """Restore the state that :meth:`save` wrote, to resume; ``origin`` is the checkpoint's file, for messages."""
        resume = content["resume"]
        load_weights(self.model, resume["model"], origin)
        if self.ema is not None:
            load_weights(self.ema.module, content["model"], origin)
            self.ema.updates = resume["averaged"]
        self.optimizer.load_state_dict(resume["optimizer"])
        self.scheduler.load_state_dict(resume["scheduler"])
        self.fabric.strategy.precision.load_state_dict(resume["precision"])
        self.progress = Progress(**content["progress"])
