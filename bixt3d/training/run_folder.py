"""The folder that a run is written into, by one process at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from .resume import resumed_folder
from .settings import AUTO, TrainSettings

T = TypeVar("T")
WRITER = ".writer"  # says who writes the folder; it counts only while that process holds its lock
ATTEMPTS = 5  # to lock the file that is there, on file systems whose numbers of files hold still
LOCKED_BYTE = 1 << 20  # beyond what is written, since Windows lets nobody read a byte that is locked


class RunFolder:
    """The folder of a run, the same on every rank; the first of them keeps other processes from writing it.

    Use as a context manager around all that writes. What keeps others away is a lock of the operating system, which
    ends with the process however that ends, also where the folder is on another machine. Only a file system that has
    no locks lets a second process in.

    Args:
        config: ``name`` and, where there is one, ``run_dir``.
        settings: ``resume`` says whether a run continues.
        fabric: launched Lightning Fabric.

    Attributes:
        path: the folder; None before :meth:`make` where the toolkit chooses it.
        resumed: whether it holds a run that is to be continued.

    Raises:
        ValueError: ``train.resume`` is no run, or ``auto`` without ``run_dir``.
    """

    def __init__(self, config: Mapping[str, Any], settings: TrainSettings, fabric: Any):
        self._fabric, self._parent = fabric, Path("runs", config["name"])
        self._lock: IO[str] | None = None
        given = config.get("run_dir")
        if settings.resume == AUTO and given is None:
            raise ValueError(
                "train.resume: auto continues the run in run_dir, or starts it there; name the folder with run_dir=DIR."
            )
        self.path = None if given is None else Path(given)
        self.resumed = settings.resume is not None
        if settings.resume == AUTO:
            self.resumed = fabric.broadcast(self.last.is_file())
        elif settings.resume is not None:
            self.path = resumed_folder(settings.resume)

    @property
    def last(self) -> Path:
        """The checkpoint to continue from, of a folder that has a name."""
        assert self.path is not None
        return self.path / "last.pt"

    def __enter__(self) -> RunFolder:
        """Keep others from a run that is continued, and say at once what stands in the way of a new one.

        Raises:
            ValueError: another process writes the run, or ``run_dir`` holds one that is not to be continued.
        """
        self._first(self._look)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is None:
            return
        if os.name == "nt":  # removes no file that is open
            self._lock.close()
        with contextlib.suppress(OSError):
            Path(self._lock.name).unlink()
        self._lock.close()

    def make(self) -> Path:
        """Make the folder of a new run, one that no other process has; return that of any run.

        Raises:
            ValueError: as on entering, since time has gone by.
        """
        self.path = self._first(self._make)
        return self.path

    def _look(self) -> None:
        if self.path is None:
            return
        if (self.path / WRITER).is_file() or (self.resumed and self.last.is_file()):
            self._hold(self.path)
        self._check(self.path)

    def _make(self) -> Path:
        if self.path is not None:
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold(self.path)
            self._check(self.path)
            return self.path
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        self._parent.mkdir(parents=True, exist_ok=True)
        folder, attempt = self._parent / stamp, 1
        while True:
            try:
                folder.mkdir()
            except FileExistsError:
                attempt += 1
                folder = self._parent / f"{stamp}-{attempt}"
            else:
                self._hold(folder)
                return folder

    def _hold(self, folder: Path) -> None:
        if self._lock is None:
            self._lock = _lock(folder / WRITER)
        if self._lock is None:
            print(
                f"{folder}: its file system has no locks, so nothing keeps a second process from writing this run",
                file=sys.stderr,
            )

    def _check(self, folder: Path) -> None:
        if not self.resumed and (folder / "last.pt").is_file():
            raise ValueError(
                f"run_dir: {folder} holds a run already; choose another folder, or continue it with "
                f"train.resume={folder}."
            )

    def _first(self, action: Callable[[], T]) -> T:
        """Do something on the first rank alone; what it returns, or raises, is the same on all."""
        done: Any = None
        if self._fabric.is_global_zero:
            try:
                done = action()
            except (OSError, ValueError) as error:
                done = error
        done = self._fabric.broadcast(done)
        if isinstance(done, Exception):
            raise done
        return done


def _lock(path: Path) -> IO[str] | None:
    """Hold a file until the process ends or closes it; None where the file system has no locks.

    Raises:
        ValueError: another process holds it.
    """
    for attempt in range(ATTEMPTS):
        file = path.absolute().open("a+", encoding="utf-8")
        try:
            _try_lock(file)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            who = " ".join(file.read().split()) or "another process"
            file.close()
            raise ValueError(
                f"run_dir: {path.parent} is being written by {who}; wait for its end, or choose another folder."
            ) from None
        except OSError:  # no locks here
            file.close()
            path.unlink(missing_ok=True)
            return None
        if attempt == ATTEMPTS - 1 or _is_at(file, path):
            break
        file.close()
    file.truncate(0)
    job = os.environ.get("SLURM_JOB_ID")
    of_job = f" of job {job}" if job else ""
    since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"process {os.getpid()}{of_job} on {socket.gethostname()} since {since}\n")
    file.flush()
    return file


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is the one of a path; who held it may have removed it before another made a new one."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _try_lock(file: IO[str]) -> None:
    """Lock a file for this process alone, or raise BlockingIOError or PermissionError where another has it."""
    if os.name == "nt":
        import msvcrt

        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        # not flock, which a child process would go on holding, and which fewer network file systems know
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
