"""Parse slow files once: one memory-mapped array per split, rebuilt when its source changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bixt3d.io.writing import atomic_file, naming, remove_leftovers

# Part of every name. Raise it when the same file and settings come to give other numbers: a reader, unit_sphere, the
# sampling of meshes or the draw of points has changed. Caches of another format are built anew.
FORMAT = 2
SHOWN = 10  # how many files that cannot be parsed a message names
Built = tuple[tuple[int, ...], Iterable[np.ndarray]]  # shape of an array, and its blocks in order


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

    The cache is up to date when the list of files, their sizes and modification times, the settings and
    :data:`FORMAT` are those it was built from. It is written under a temporary name and then renamed, so an
    interrupted run leaves no half of it.

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

    Raises:
        OSError: the cache cannot be written, as on a full disk; the error names it.
        RuntimeError: several files cannot be parsed; it names the first ten. Of a single one, or where none can be, it
            is what ``parse`` raised.
    """

    def build() -> Built:
        return shape, (np.broadcast_to(row, shape[1:]) for row in _parsed(name, files, parse))

    return _cached(name, root, files, settings, list(shape), folder, build)


def cached_rows(
    name: str,
    root: Path,
    files: Sequence[Path],
    settings: dict[str, object],
    channels: int,
    parse: Callable[[int], np.ndarray],
    folder: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of clouds that differ in size, from the cache where it is up to date.

    Up to date, and written, as in :func:`cached_array`. While it is built all rows are in memory.

    Args:
        name, root, files, settings, folder: as in :func:`cached_array`.
        channels: numbers in a row.
        parse: makes the rows of cloud ``i``, ``(n_i, channels)``, n_i at least 1.

    Returns:
        rows ``(sum of n_i, channels)`` float32, memory-mapped, read-only, and offsets
        ``(len(files) + 1,)`` int64: cloud ``i`` is ``rows[offsets[i] : offsets[i + 1]]``.

    Raises:
        OSError, RuntimeError: as in :func:`cached_array`.
    """

    def build() -> Built:
        # one array in one file, so that rows and sizes cannot part: the first column is the cloud's number
        parsed = enumerate(_parsed(name, files, parse))
        joined = np.concatenate([np.insert(rows, 0, i, axis=1).astype(np.float32) for i, rows in parsed])
        return joined.shape, [joined]

    cached = _cached(name, root, files, settings, ["rows", channels], folder, build)
    sizes = np.bincount(cached[:, 0].astype(np.int64), minlength=len(files))
    return cached[:, 1:], np.concatenate([[0], np.cumsum(sizes)])


def _cached(
    name: str,
    root: Path,
    files: Sequence[Path],
    settings: dict[str, object],
    form: object,
    folder: str | os.PathLike[str] | None,
    build: Callable[[], Built],
) -> np.ndarray:
    """Open the array of this form, which its name tells; where there is none, build it first."""
    stats = [(os.path.relpath(file, root), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    subject = f"{name}-{_digest([str(root.resolve()), settings])}"  # outlives a change of the files
    target = _cache_folder(root, folder) / f"{subject}-{_digest([FORMAT, stats, form])}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # absent, cut short or empty
        return np.load(target, mmap_mode="r", allow_pickle=False)
    _write(target, *build())
    remove_leftovers(target)
    for stale in target.parent.glob(f"{subject}-*.npy"):
        if stale != target:
            with contextlib.suppress(OSError):  # still mapped by another process on Windows
                stale.unlink()
    return np.load(target, mmap_mode="r", allow_pickle=False)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _cache_folder(root: Path, folder: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)
    import pooch

    refused = []
    for place in (root.resolve().parent / f"{root.resolve().name}_cache", Path(pooch.os_cache("bixt3d"))):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError:  # a read-only disk, or someone else's folder
            refused.append(str(place))
    raise PermissionError(
        f"data.cache: the parsed clouds of {root} can be kept neither in {' nor in '.join(refused)}, which cannot be "
        "written; name a folder for them with data.cache=DIR."
    )


def _write(target: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write a float32 array block by block: a full disk would kill a process that writes a memory map."""
    with atomic_file(target) as temporary, temporary.open("wb") as file:
        form = np.dtype(np.float32)
        header = {"descr": np.lib.format.dtype_to_descr(form), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, form).data)


def _parsed(name: str, files: Sequence[Path], parse: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
    """Parse one file after the other; those that cannot be are said together, after the last.

    Where not even one of the first can be, a setting is wrong, not the files: then the first alone is said, at once.
    """
    failed, failures, count = 0, [], len(files)
    for i in _progress(name, count):
        try:
            with naming(files[i]):
                row = parse(i)
        except (OSError, RuntimeError, ValueError) as error:
            failed += 1
            if failed <= SHOWN:  # an error holds what was read of its file
                failures.append(error)
            if failed == i + 1 == min(SHOWN, count):
                raise failures[0] from None
            continue
        if not failures:
            yield row
    if failed == 1:
        raise failures[0]
    if failed:
        reasons = " ".join(f"({number}) {error}" for number, error in enumerate(failures, 1))
        shown = f"; the first {SHOWN}" if failed > SHOWN else ""
        raise RuntimeError(f"{failed} of the {count} files of {name} cannot be used{shown}: {reasons}")


def _progress(name: str, count: int) -> Iterable[int]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)  # standard output belongs to the caller
    return track(range(count), f"Reading {name}", console=console, transient=True, disable=count < 100)
