"""Show the progress of a run on the console, and log its curves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .logs import RunLog

if TYPE_CHECKING:
    from torch import Tensor

    from ..engine import Trainer


EVERY = 60.0  # seconds between two lines if the output is not a terminal and so shows no progress bar


class ConsoleObserver:
    """Show a progress bar, print a line for each evaluation, and log the curves.

    Implements :class:`bixt3d.seams.Observer` for :class:`bixt3d.engine.Trainer`. If the output is not a terminal, a
    line a minute takes the place of the progress bar. Use as a context manager around the training, which closes the
    bar and the logs.

    Args:
        folder: the run's folder, for the curves.
        step: optimiser step that the run starts or continues from.
        samples_per_step: clouds in one optimiser step, over all devices.
        split: name of the selection split, shown with its figures; None if there is none.
    """

    def __init__(self, folder: Path, *, step: int, samples_per_step: int, split: str | None = None):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._log = RunLog(folder, step)
        self._console = Console()
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]} · {task.fields[rate]} samples/s · left"),
            TimeRemainingColumn(elapsed_when_finished=True, compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=None, completed=step, epoch=0, loss="-", rate="-")
        self._samples_per_step = samples_per_step
        self._split = "" if split is None else f"{split} "
        self._since = (step, time.perf_counter())
        self._spoke = time.perf_counter()

    def __enter__(self) -> ConsoleObserver:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        self._log.close()

    def stepped(self, trainer: Trainer, loss: Tensor, end: int) -> None:
        """Update the bar and the log; the loss is read every ``log_every`` steps, since that synchronises."""
        p = trainer.progress
        self._bar.update(self._task, completed=p.step, total=end, epoch=p.epoch_number)
        if p.step % trainer.settings.log_every and p.step != end:
            return
        step, then = self._since
        now = time.perf_counter()
        rate = (p.step - step) * self._samples_per_step / (now - then)
        self._since = (p.step, now)
        value = float(loss)
        self._log.write(
            "train", p.step, epoch=p.epoch_number, loss=value, lr=trainer.lr, samples_per_second=rate
        )
        self._bar.update(self._task, loss=f"{value:.3f}", rate=f"{rate:,.0f}")
        ended = p.step == end and not self._split  # else the line of an evaluation follows
        if not self._console.is_terminal and (ended or now - self._spoke >= EVERY):
            self._say(
                f"epoch {p.epoch_number:>3} · step {p.step:>6} of {end} · loss {value:.3f} · {rate:,.0f} samples/s"
            )

    def selected(self, trainer: Trainer, result: Mapping[str, float], better: bool) -> None:
        """Print and log an evaluation on the selection split."""
        p = trainer.progress
        self._log.write("selection", p.step, epoch=p.epoch_number, **result, minutes=p.seconds / 60)
        figures = " · ".join(f"{name} {value:.2f}" for name, value in result.items())
        star = " · best so far" if better else ""
        self._say(
            f"epoch {p.epoch_number:>3} · step {p.step:>6} · {self._split}{figures}{star} · {p.seconds / 60:.1f} min"
        )
        self._since = (p.step, time.perf_counter())  # selecting is not part of the training rate

    def _say(self, line: str) -> None:
        # no wrapping at the width of the console, so that grep finds whole lines
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._spoke = time.perf_counter()
