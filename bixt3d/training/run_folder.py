"""The folder of a run, locked so that only one process writes to it."""

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
WRITER = ".writer"  # lock file, which names the process that writes to the folder
# Tries to lock the file that is at the path. On a file system with unstable inode numbers, the last one is accepted.
ATTEMPTS = 5
LOCKED_BYTE = 1 << 20  # beyond the content, since Windows does not allow others to read a locked byte


class RunFolder:
    """The folder of a run, the same on every rank. Rank 0 locks it against other processes.

    Use as a context manager around everything that writes to the folder. The lock is one of the operating system: it
    ends with the process, however that ends, on network file systems too. A file system without locks lets a second
    process in.

    Args:
        config: ``name`` and, optionally, ``run_dir`` are read.
        settings: ``resume`` says whether to continue a run.
        fabric: launched Lightning Fabric.

    Attributes:
        path: the folder; None before :meth:`make` if neither ``run_dir`` nor ``train.resume`` names it.
        resumed: whether the folder holds a run to continue.

    Raises:
        ValueError: ``train.resume`` is a file other than a ``last.pt``, or ``auto`` without ``run_dir``.
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
        """The checkpoint to continue from; ``path`` must be known."""
        assert self.path is not None
        return self.path / "last.pt"

    def __enter__(self) -> RunFolder:
        """Lock the folder of a run to continue, or check that a new run can be written to ``run_dir``.

        Raises:
            ValueError: another process writes to the folder, or ``run_dir`` holds a run that is not to be continued.
        """
        self._first(self._look)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is None:
            return
        if os.name == "nt":  # which cannot remove an open file
            self._lock.close()
        with contextlib.suppress(OSError):
            Path(self._lock.name).unlink()
        self._lock.close()

    def make(self) -> Path:
        """Create and lock the folder, if it is that of a new run; return it in any case.

        Raises:
            ValueError: as on entering the context, since another process may have begun a run in the meantime.
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
        """Run an action on rank 0 alone; return its result, or raise its error, on all ranks."""
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
    """Open and lock a file until it is closed or the process ends; None if the file system has no locks.

    Raises:
        ValueError: another process holds the lock.
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
        except OSError:  # the file system has no locks
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
    """Whether an open file is still the one at a path; the previous owner may have removed it in the meantime."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _try_lock(file: IO[str]) -> None:
    """Lock a file exclusively; raise BlockingIOError or PermissionError if another process holds the lock."""
    if os.name == "nt":
        import msvcrt

        file.seek(LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        # not flock, which child processes would keep holding, and which fewer network file systems support
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
