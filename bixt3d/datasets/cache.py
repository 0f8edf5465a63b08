"""Cache parsed files as one memory-mapped array per split, rebuilt when the source files change."""

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

# Part of every cache key. Raise it when the same files and settings give different numbers, since a reader,
# unit_sphere, the sampling of meshes or the drawing of points has changed. Caches of other formats are rebuilt.
FORMAT = 2
SHOWN = 10  # unreadable files that a message names at most
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
    """Return an array ``(n, N, C)`` float32 whose row ``i`` is ``parse(i)``, from the cache if it is up to date.

    The cache is up to date if it was built from the same list of files, with the same sizes and modification times,
    settings and :data:`FORMAT`. It is written under a temporary name and then renamed, so an interrupted run leaves
    no partial cache.

    Args:
        name: word for the file name and the progress bar, such as ``"train"``.
        root: folder of the data set.
        files: one per row, in order.
        settings: everything else that affects the content; must be JSON-serialisable.
        shape: shape of the whole array.
        parse: function that returns row ``i``, ``(N, C)``.
        folder: folder of the cache. None uses ``<root>_cache`` beside the root, or the user's cache folder if that is
            not writable.

    Returns:
        A read-only memory-mapped array.

    Raises:
        OSError: the cache cannot be written, for example because the disk is full; the error names the file.
        RuntimeError: several files cannot be parsed; the message names the first ten.
        Exception: the one that ``parse`` raised, if only one file or each of the first ten cannot be parsed.
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
    """Return the rows of clouds of different sizes, from the cache if it is up to date.

    The cache works as in :func:`cached_array`, but all rows are in memory while it is built.

    Args:
        name, root, files, settings, folder: as in :func:`cached_array`.
        channels: number of columns.
        parse: function that returns the rows of cloud ``i``, ``(n_i, channels)`` with ``n_i`` at least 1.

    Returns:
        Rows ``(sum of n_i, channels)`` float32, memory-mapped and read-only, and offsets ``(len(files) + 1,)`` int64.
        Cloud ``i`` is ``rows[offsets[i] : offsets[i + 1]]``.

    Raises:
        OSError, RuntimeError: as in :func:`cached_array`.
    """

    def build() -> Built:
        # one file for rows and sizes, so that they always match: the first column is the index of the cloud
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
    """Open the cached array, building it first if the cache is missing or out of date."""
    stats = [(os.path.relpath(file, root), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    subject = f"{name}-{_digest([str(root.resolve()), settings])}"  # stays the same when the files change
    target = _cache_folder(root, folder) / f"{subject}-{_digest([FORMAT, stats, form])}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # missing, truncated or empty
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
        f"data.cache: cannot write the parsed clouds of {root} to {' or '.join(refused)}; name a writable folder with "
        "data.cache=DIR."
    )


def _write(target: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write a float32 array block by block; writing a memory map to a full disk would kill the process."""
    with atomic_file(target) as temporary, temporary.open("wb") as file:
        form = np.dtype(np.float32)
        header = {"descr": np.lib.format.dtype_to_descr(form), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, form).data)


def _parsed(name: str, files: Sequence[Path], parse: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
    """Parse the files in order; after the last, raise one error for all that failed.

    If each of the first ``SHOWN`` files fails, a setting is probably wrong rather than the files, so the first error
    is raised at once.
    """
    failed, failures, count = 0, [], len(files)
    for i in _progress(name, count):
        try:
            with naming(files[i]):
                row = parse(i)
        except (OSError, RuntimeError, ValueError) as error:
            failed += 1
            if failed <= SHOWN:  # an error keeps what was read of its file in memory
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
