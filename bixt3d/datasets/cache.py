"""Parse slow files once: one memory-mapped array per split, rebuilt when its source changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


def cached_array(
    name: str,
    root: Path,
    files: Sequence[Path],
    settings: dict[str, object],
    shape: tuple[int, int, int],
    parse: Callable[[int], np.ndarray],
    folder: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Return ``(n, N, C)`` float32 whose row ``i`` is ``parse(i)``, from the cache where it is up to date.

    The cache is up to date when the list of files, their sizes and modification times, and the settings are
    those it was built from. It is written under a temporary name and then renamed, so an interrupted run
    leaves no half of it.

    Args:
        name: word for the file name and the progress bar, such as ``"train"``.
        root: the data set's folder.
        files: one per row, in order.
        settings: what else decides the content; JSON-able.
        shape: shape of the whole array.
        parse: makes row ``i``, ``(N, C)``.
        folder: where the cache lies; None for ``<root>_cache`` beside the root, or the user's cache folder
            where that cannot be written.

    Returns:
        A read-only memory-mapped array.
    """
    stats = [(os.path.relpath(file, root), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    subject = f"{name}-{_digest([str(root.resolve()), settings])}"
    target = _cache_folder(root, folder) / f"{subject}-{_digest([stats, shape])}.npy"
    cached = _open(target, shape)
    if cached is not None:
        return cached
    _build(name, target, shape, parse)
    for stale in target.parent.glob(f"{subject}-*.npy"):
        if stale != target:
            with contextlib.suppress(OSError):  # still mapped by another process on Windows
                stale.unlink()
    cached = _open(target, shape)
    if cached is None:
        raise RuntimeError(
            f"{target}: the cache just written has another shape than {shape}; is the disk full?"
        )
    return cached


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _cache_folder(root: Path, folder: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)
    root = root.resolve()
    beside = root.parent / f"{root.name}_cache"
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:  # a read-only disk, or someone else's folder
        import pooch

        users = Path(pooch.os_cache("bixt3d"))
        users.mkdir(parents=True, exist_ok=True)
        return users


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):  # absent, or cut short
        return None
    return array if array.shape == shape and array.dtype == np.float32 else None


def _build(name: str, target: Path, shape: tuple[int, ...], parse: Callable[[int], np.ndarray]) -> None:
    from rich.console import Console
    from rich.progress import track

    # not mkstemp: its files are for their owner alone, and a cache may be shared by a group
    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        console = Console(stderr=True)  # standard output belongs to the caller
        rows = range(shape[0])
        for i in track(rows, f"Reading {name}", console=console, transient=True, disable=len(rows) < 100):
            array[i] = parse(i)
        array.flush()
        del array
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
