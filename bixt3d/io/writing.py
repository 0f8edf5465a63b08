"""Write text, tables and clouds atomically, and check in advance whether a file can be written."""

from __future__ import annotations

import contextlib
import csv
import glob
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bixt3d.io.ply import TYPES

ABANDONED = 3600.0  # seconds without a write after which a temporary file counts as abandoned


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raise ValueError if no file can be written into a folder, which need not exist yet; creates nothing.

    Raises:
        ValueError: the folder or one of its parents is a file, or there is no permission to write.
    """
    place = Path(os.path.abspath(folder))
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"{folder}: {place} is not a folder; expected one to write into, name another.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: no permission to write into {place}; name another folder.")


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise ValueError if a file cannot be written, to be called before the work starts; creates nothing.

    Raises:
        ValueError: the path is a folder, or no file can be written into its folder (:func:`check_folder`).
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: is a folder; expected the name of a file to write.")
    check_folder(Path(path).parent)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Context manager that yields a temporary path beside ``path`` and renames it to ``path`` at the end.

    A crash, or an error inside the ``with`` block, leaves the old file or none, never a partial one.

    Args:
        path: the file to write. Its folder is created if it does not exist.
        durable: flush the content to the disk first, so that even a power cut leaves no partial file. This takes some
            milliseconds, and seconds for gigabytes.

    Raises:
        OSError: the file cannot be written; the error names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keeps the suffix, since some writers choose the format by it or append it if it is missing. mkstemp would make
    # files that only their owner can read, but these may be shared by a group.
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        with naming(path, instead_of=temporary):
            yield temporary
            if durable:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        # fails if it was renamed or never created, or on Windows if it is still memory-mapped
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def naming(path: Path, instead_of: Path | None = None) -> Iterator[None]:
    """Context manager that makes system errors that name no file, or ``instead_of``, name ``path``.

    An error of a full disk, for example, names no file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None and type(error) is not OSError:  # raised by bixt3d itself
            raise
        if error.errno is None:  # from numpy, which says how much was written
            raise OSError(f"{path}: {error}") from error
        named = (error.filename, error.filename2)
        if named == (None, None) or (instead_of is not None and str(instead_of) in map(str, named)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove temporary files that killed processes left when writing ``path``, after an hour without a write."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.stem)}.????????{glob.escape(path.suffix)}"):
        with contextlib.suppress(OSError):  # owned by another user, or already removed
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8.

    Bytes of a file name that are not valid UTF-8 become escapes such as ``\\udce9``, from which ``os.fsencode``
    restores the name.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], content: Any, *, allow_nan: bool = False) -> None:
    """Write JSON-serialisable values as indented JSON, with file names escaped as in :func:`write_text`.

    Args:
        path: the file.
        content: the values.
        allow_nan: write numbers that are not finite as ``NaN`` or ``Infinity``, which Python reads but JSON does not
            allow.

    Raises:
        ValueError: a number is not finite, and ``allow_nan`` is not set.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n")


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows, the first of which are the headings, with file names escaped as in :func:`write_text`."""
    with (
        atomic_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows(rows)


def write_ply(
    path: str | os.PathLike[str],
    points: np.ndarray,
    colors: np.ndarray,
    labels: np.ndarray | None = None,
    normals: np.ndarray | None = None,
) -> None:
    """Write a coloured cloud as binary .ply, which all common viewers open.

    Coordinates are stored as float if that is exact, otherwise as double. Map coordinates such as UTM would move by up
    to half a metre in float.

    Args:
        path: the file.
        points: ``(N, 3)`` real, in any unit.
        colors: ``(N, 3)`` uint8, RGB.
        labels: ``(N,)`` integers, stored as the property ``label``; None for none.
        normals: ``(N, 3)`` real, stored as float; None for none.

    Raises:
        ValueError: a shape is wrong.
        TypeError: the colours are not uint8.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points: expected shape (N, 3), got {points.shape}.")
    if colors.dtype != np.uint8:
        raise TypeError(f"colors: expected dtype uint8 with values 0 to 255, got {colors.dtype}.")
    if colors.shape != points.shape:
        raise ValueError(f"colors: expected shape {points.shape}, one colour per point, got {colors.shape}.")
    if labels is not None and labels.shape != points.shape[:1]:
        raise ValueError(f"labels: expected shape {points.shape[:1]}, one per point, got {labels.shape}.")
    if normals is not None and normals.shape != points.shape:
        raise ValueError(f"normals: expected shape {points.shape}, one per point, got {normals.shape}.")
    with np.errstate(over="ignore"):
        single = points.astype(np.float32)
    exact = np.array_equal(single.astype(np.float64), points.astype(np.float64))
    real = "float" if exact else "double"
    columns = [(axis, real, points[:, i]) for i, axis in enumerate("xyz")]
    if normals is not None:
        columns += [(f"n{axis}", "float", normals[:, i]) for i, axis in enumerate("xyz")]
    columns += [(name, "uchar", colors[:, i]) for i, name in enumerate(("red", "green", "blue"))]
    if labels is not None:
        columns.append(("label", "int", labels))
    rows = np.empty(len(points), dtype=[(name, "<" + TYPES[kind]) for name, kind, _ in columns])
    for name, _, values in columns:
        rows[name] = values
    properties = [f"property {kind} {name}" for name, kind, _ in columns]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties]
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join(header) + "\nend_header\n").encode("ascii"))
        file.write(rows.data)  # tofile would not report why writing failed


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as compressed .npz; :func:`bixt3d.io.read_points` reads it if it contains ``points``."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes them for its own options
