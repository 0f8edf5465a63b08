"""Start and end the processes of a run, one per device."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

import torch

from .allocator import keep_freed_memory
from .settings import TrainSettings
from .signals import STOPS


def make_fabric(settings: TrainSettings) -> Any:
    """Launch Lightning Fabric on the devices of the settings, or on those of ``torchrun``.

    With ``settings.keep_freed_memory``, the C allocator is told to keep freed memory.

    Raises:
        ValueError: the accelerator or the precision needs a device that is not available, or ``srun`` started the
            command several times.
    """
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment

    _check_srun()
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
        # else Lightning would read SLURM's variables, which describe the job and not this process
        plugins=None if "LOCAL_RANK" in os.environ else LightningEnvironment(),
    )
    fabric.launch()
    if fabric.world_size > 1:
        atexit.register(_leave_process_group)
    return fabric


def _check_srun() -> None:
    """Raise ValueError if ``srun`` started this command several times, as each would train the whole run."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks > 1 and "LOCAL_RANK" not in os.environ:
        raise ValueError(
            f"srun: it started this command {tasks} times, and each would do the whole work; start one task on each "
            "node with torchrun in it (srun --ntasks-per-node=1 torchrun ..., docs/cluster.md), or one task alone "
            "with train.devices=N for N devices of one node."
        )


def _leave_process_group() -> None:
    """Stop the threads of torch.distributed before the interpreter shuts down.

    Lightning does so only for NCCL. With gloo, a process may abort at exit (pytorch issue 190489).
    """
    if torch.distributed.is_initialized():
        # destroy_process_group holds the GIL while it waits for gloo's threads, at least in torch 2.6. A thread that
        # is still releasing the tensors of the last gather needs the GIL: without this pause, some runs never end.
        time.sleep(0.2)
        torch.distributed.destroy_process_group()


def meant_by(accelerator: str) -> str:
    """Return the accelerator that a setting means on this machine: ``auto`` is resolved, others are returned as is."""
    if accelerator != "auto":
        return accelerator
    return "mps" if torch.backends.mps.is_available() else "cuda" if torch.cuda.is_available() else "cpu"


def needs_processes(settings: TrainSettings) -> bool:
    """Whether the settings ask for several devices and this process was not started by torchrun."""
    return settings.devices > 1 and "LOCAL_RANK" not in os.environ


def run_again_under_torchrun(devices: int) -> int:
    """Run the command of this process again under torchrun, with one process per device.

    Returns:
        The largest exit status of the processes, or ``128 + signal``.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # each process reports its own error; torchrun's summary adds nothing
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    options = ["--standalone", f"--nproc_per_node={devices}", "--no-python"]

    def hand_on(number: int, frame: FrameType | None) -> None:
        raise SignalException("asked to leave", sigval=signal.Signals(number))

    # torchrun handles some of these signals, and has an option for the others only in newer releases of torch
    for number in STOPS:
        signal.signal(number, hand_on)
    # the whole command, so that options of Python itself (-u, -X) are kept
    command = torchrun.parse_args([*options, sys.executable, *sys.orig_argv[1:]])
    sys.stdout.flush()
    try:
        torchrun.run(command)
    except ChildFailedError as error:
        codes = (failure.exitcode for failure in error.failures.values())
        return max(code if code >= 0 else 128 - code for code in codes)
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0
