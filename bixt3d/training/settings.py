"""Settings of a run: the ``train`` node of a config, checked before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..engine import LoopSettings

ACCELERATORS = ("auto", "cpu", "cuda", "mps")
COMPILE_MODES = ("default", "max-autotune", "reduce-overhead")
AUTO = "auto"  # train.resume: continue what is there, else start
PRECISIONS = ("16-mixed", "32-true", "bf16-mixed")


@dataclass(frozen=True)
class TrainSettings(LoopSettings):
    """The ``train`` node of a config.

    Args:
        batch_size: clouds in a training batch, on each device; an incomplete last batch is left out.
        eval_batch_size: clouds in an evaluation batch.
        sampling: which of the stored points a training cloud keeps: ``"first"`` or ``"random"``.
        eval_sampling: which of the stored points are measured: ``"first"``, the first ``data.num_points`` of
            each cloud, or for parts ``"all"``: each stored point once, in pieces of that many.
        ema_decay: decay of the running average of the weights, at least 0 and below 1; null for none.
        compile: run the model through ``torch.compile``: true, or the name of one of its modes
            (``"reduce-overhead"`` replays CUDA graphs). Evaluation always runs uncompiled.
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: devices on this machine; under ``torchrun`` its settings count.
        select_on: the split that selects ``best.pt``: ``"val"``, or null to select nothing. ``"test"`` is
            possible for comparison with papers that do so, and is said with every result.
        targets: values of the figure that selects; ``results.json`` says in which minute each was first reached.
        measure_test: measure on the test split at the end; false for searches, which must not look at it.
        keep_freed_memory: see :func:`bixt3d.training.allocator.keep_freed_memory`, which holds for the whole process;
            changes speed, never a result.
        start_from: checkpoint or published weights that a new run takes as many of its weights from as fit; null for
            none.
        resume: run folder to continue; null to start anew; ``"auto"`` to continue the run in ``run_dir`` where there is
            one and else to start it, so that a job that is queued again runs the very same command.
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
        """The mode of ``torch.compile``; None to run uncompiled."""
        return self.compile if isinstance(self.compile, str) else "default" if self.compile else None
