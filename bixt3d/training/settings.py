"""Settings of a run: the ``train`` node of a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..engine import LoopSettings

ACCELERATORS = ("auto", "cpu", "cuda", "mps")
COMPILE_MODES = ("default", "max-autotune", "reduce-overhead")
AUTO = "auto"  # of train.resume: continue the run in run_dir if there is one, else start it
PRECISIONS = ("16-mixed", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class TrainSettings(LoopSettings):
    """The ``train`` node of a config. The settings of :class:`~bixt3d.engine.LoopSettings` are part of it.

    Args:
        batch_size: clouds per training batch on each device. An incomplete last batch is dropped.
        eval_batch_size: clouds per evaluation batch.
        sampling: which of its stored points a training cloud keeps: ``"first"`` or ``"random"``.
        eval_sampling: which of the stored points are evaluated: ``"first"`` for the first ``data.num_points`` of each
            cloud or, for part segmentation, ``"all"`` for each stored point once, in pieces of ``data.num_points``.
        ema_decay: decay of the running average of the weights, at least 0 and below 1; null for no average.
        compile: train with ``torch.compile``: true, or the name of one of its modes (``"reduce-overhead"`` replays
            CUDA graphs). Evaluation is never compiled.
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: number of devices on this machine. Under ``torchrun``, its settings are used instead.
        select_on: the selection split, which decides on ``best.pt``: ``"val"``, or null to select nothing. ``"test"``
            is allowed for comparison with papers that do so, and is stated with every result.
        targets: values of the figure that selects. ``results.json`` records after how many minutes each was first
            reached.
        measure_test: evaluate on the test split at the end; false for searches, which must not use it.
        keep_freed_memory: see :func:`bixt3d.training.allocator.keep_freed_memory`. It applies to the whole process, and
            changes the speed but never a result.
        start_from: checkpoint or published weights to initialise a new run from, as far as names and shapes match;
            null for random initialisation.
        resume: run folder to continue; null to start a new run; ``"auto"`` to continue the run in ``run_dir`` if there
            is one, and else start it, so that a requeued job can run the same command again.
    """

    batch_size: int = 32
    eval_batch_size: int = 64
    sampling: str = "first"
    eval_sampling: str = "first"
    ema_decay: float | None = None
    compile: bool | str = False
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    select_on: str | None = "val"
    targets: Sequence[float] = ()
    measure_test: bool = True
    keep_freed_memory: bool = True
    start_from: str | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "eval_batch_size", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}.")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay: expected at least 0 and below 1, or null, got {self.ema_decay}.")
        if any(isinstance(t, bool) or not isinstance(t, int | float) for t in self.targets):
            raise TypeError(f"targets: expected numbers, got {list(self.targets)}.")
        for name, valid in (
            ("precision", PRECISIONS),
            ("accelerator", ACCELERATORS),
            ("sampling", ("first", "random")),
            ("eval_sampling", ("all", "first")),
            ("select_on", (None, "test", "val")),
        ):
            if getattr(self, name) not in valid:
                shown = ", ".join("null" if v is None else v for v in valid)
                raise ValueError(f"{name}: expected one of {shown}, got {getattr(self, name)!r}.")
        if isinstance(self.compile, str) and self.compile not in COMPILE_MODES:
            raise ValueError(
                f"compile: expected true, false or one of {', '.join(COMPILE_MODES)}, got {self.compile!r}."
            )

    @property
    def compile_mode(self) -> str | None:
        """The mode of ``torch.compile``; None to run in eager mode."""
        return self.compile if isinstance(self.compile, str) else "default" if self.compile else None
