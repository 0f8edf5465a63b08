"""Randomness that is a function of where the run stands, and a record of what it ran on."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

# Where SLURM, PBS, LSF and Grid Engine name a job.
JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


def derive_seed(*parts: int) -> int:
    """Mix integers into one 63-bit seed, the same on every platform and Python.

    A run seeds torch before each step with ``derive_seed(seed, step, rank)``. Dropout and stochastic
    depth are then functions of the step alone, so a resumed run repeats them without any saved generator.
    """
    digest = hashlib.sha256(",".join(str(int(p)) for p in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _first_line(command: list[str], cwd: Path | None = None) -> str | None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None


def git_commit() -> str | None:
    """Return the commit of the source tree, with ``+changes`` where files differ; None outside a checkout.

    A package that merely lies in somebody else's repository, as in a virtual environment there, has none.
    """
    here = Path(__file__).parent
    if _first_line(["git", "ls-files", "--error-unmatch", Path(__file__).name], here) is None:
        return None
    commit = _first_line(["git", "rev-parse", "HEAD"], here)
    if commit and _first_line(["git", "status", "--porcelain", "--untracked-files=no"], here):
        commit += "+changes"
    return commit


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, object]:
    """Describe what a run runs on: date, host, job of the scheduler, commit, command, versions, processor, devices."""
    import numpy
    import torch

    from . import __version__

    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": platform.node(),
        "job": next((os.environ[name] for name in JOBS if name in os.environ), None),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "git_commit": git_commit(),
        "bixt3d": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
