"""Seeds derived from the position of a run, and a record of the environment that it ran in."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

# Environment variables with the job's id under SLURM, PBS, LSF and Grid Engine.
JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")


def derive_seed(*parts: int) -> int:
    """Hash integers into one 63-bit seed, the same on every platform and Python version.

    Training seeds torch before each step with ``derive_seed(seed, step, rank)``. Dropout and stochastic depth then
    depend on these numbers alone, so a resumed run repeats them without a saved generator state.
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
    """Return the commit of the source tree, with ``+changes`` if tracked files differ; None outside a checkout.

    It is also None if the package is merely installed inside another repository, as in a virtual environment there.
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
    """Describe the environment of a run: date, host, job id, command, commit, versions, processor and devices."""
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
