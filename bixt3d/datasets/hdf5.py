"""Read point clouds from HDF5 files in the layout of the published ModelNet40 and ShapeNetPart files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bixt3d.io.damage import Parsing

_MOST_A_BYTE = 2000  # highest compression ratio that is accepted; deflate reaches 1032
_ALWAYS_READ = 1 << 28  # bytes; arrays up to this size are read whatever their compression ratio


@dataclass(frozen=True)
class Hdf5Clouds:
    """The clouds of one split, from one or more files.

    Args:
        points: ``(n, N, C)`` real, C = 3, or 6 with normals.
        labels: ``(n,)`` int64.
        part_labels: ``(n, N)`` int64, -1 for unlabelled points; None if the files have none.
        names: source of each cloud, ``"file:row"``.
        classes: class names, empty if the files have none.
    """

    points: np.ndarray
    labels: np.ndarray
    part_labels: np.ndarray | None
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()


def read_hdf5(
    paths: Sequence[Path],
    *,
    group: str = "",
    max_points: int | None = None,
    normals: bool = False,
    dtype: type | None = np.float32,
    points: bool = True,
) -> Hdf5Clouds:
    """Read and concatenate files with ``data`` and ``label``, and optionally ``normal``, ``pid`` and ``names``.

    Args:
        paths: the files, in the order in which to concatenate their clouds.
        group: group inside each file; empty for the top level.
        max_points: number of points to keep of each cloud, the first ones; None keeps all.
        normals: also read unit normals, from ``normal`` ``(n, N, 3)`` or columns 4 to 6 of ``data``.
        dtype: dtype of the points. None keeps the precision of the file, which map coordinates need until they are
            centred.
        points: whether to read the points. If False, the ``points`` returned have N = 0.

    Raises:
        ValueError: an array is missing or has the wrong shape, the files differ in the number of points or in whether
            they have ``pid``, a label is not a whole number of at least 0 (-1 in ``pid``), or normals were requested
            and are missing or not of unit length.
        TypeError: an array does not hold numbers.
        RuntimeError: a file cannot be opened as HDF5, or is damaged.
    """
    parts, sizes = [], set()
    for path in paths:
        part, size = _read_one(path, group, max_points, normals, dtype, points)
        parts.append(part)
        sizes.add(size)
    if len(sizes) > 1:
        raise ValueError(
            f"{paths[0].parent}: expected the same number of points in every file, got {sorted(sizes)}."
        )
    pids = [part.part_labels for part in parts if part.part_labels is not None]
    if pids and len(pids) < len(parts):
        raise ValueError(f"{paths[0].parent}: expected pid in every file or in none.")
    return Hdf5Clouds(
        points=np.concatenate([part.points for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        part_labels=np.concatenate(pids) if pids else None,
        names=tuple(name for part in parts for name in part.names),
        classes=parts[0].classes,
    )


def _read_one(
    path: Path, group: str, max_points: int | None, normals: bool, dtype: type | None, with_points: bool
) -> tuple[Hdf5Clouds, int]:
    """Return the content of one file, and the number of points per cloud."""
    import h5py

    where = f"{path}:{group}" if group else str(path)
    try:
        file = h5py.File(path, "r")
    except Exception as error:  # on damaged files h5py may raise anything
        raise RuntimeError(
            f"{path}: expected an HDF5 file, got one that cannot be opened ({error}); fetch it again."
        ) from error
    with file:
        with Parsing(where, "HDF5"):
            node = file[group] if group else file
            keys = set(node) if isinstance(node, h5py.Group) else set()
        if not {"data", "label"} <= keys:
            raise ValueError(
                f"{where}: expected data sets 'data' and 'label', got {', '.join(sorted(map(str, keys))) or 'none'}."
            )
        found = {key: _find(where, node, key) for key in ("data", "label", "normal", "pid") if key in keys}
        shape = found["data"].shape
        if len(shape) != 3 or shape[2] not in (3, 6) or shape[1] == 0:
            raise ValueError(f"{where}: data: expected shape (n, N, 3) or (n, N, 6), got {shape}.")
        _check(where, found, "label", (shape[0],), (shape[0], 1))
        _check(where, found, "pid", shape[:2])
        if normals:
            _check(where, found, "normal", (*shape[:2], 3))
        for key in ("data", "normal"):
            if key in found and found[key].dtype.kind not in "fiu":
                raise TypeError(f"{where}: {key}: expected real numbers, got dtype {found[key].dtype}.")
        few = slice(max_points) if with_points else slice(0)
        try:
            points = np.asarray(found["data"][:, few], dtype=dtype)
            labels = np.asarray(found["label"][()])
            extra = np.asarray(found["normal"][:, few]) if normals and "normal" in found else None
            pid = np.asarray(found["pid"][:, :max_points]) if "pid" in found else None
        except Exception as error:
            raise RuntimeError(
                f"{where}: expected {shape[0]} clouds, got data that cannot be read ({error}); "
                "fetch it again."
            ) from error
        classes = _names(where, node) if "names" in keys else ()
    if normals:
        if extra is not None:
            points = np.concatenate([points[..., :3], extra], axis=-1, dtype=dtype)
        elif shape[2] == 3:
            raise ValueError(
                f"{where}: normals=True, but the file holds xyz alone; set normals=False, or use files that "
                "hold normals (for ModelNet40 the text layout modelnet40_normal_resampled)."
            )
        else:
            _check_unit(where, points)
    else:
        points = np.ascontiguousarray(points[..., :3])
    clouds = Hdf5Clouds(
        points=points,
        labels=_as_labels(f"{where}: label", labels.reshape(-1)),
        part_labels=None if pid is None else _as_labels(f"{where}: pid", pid, least=-1),
        names=tuple(f"{path.name}:{row}" for row in range(shape[0])),
        classes=classes,
    )
    return clouds, min(shape[1], max_points or shape[1])


def _find(where: str, node: Any, key: str) -> Any:
    """Return an array of the file without reading it; raises if the file is too small for its shape."""
    import h5py

    with Parsing(where, f"HDF5 ({key})"):  # fails on damage or a dangling link
        found = node[key]
        is_array = isinstance(found, h5py.Dataset) and found.shape is not None
        stored = found.id.get_storage_size() if is_array and not found.is_virtual else None
        _ = found.dtype if is_array else None  # raises if it is damaged
    if not is_array:
        raise ValueError(f"{where}: {key}: expected an array, got a group or nothing; fetch it again.")
    if stored is not None and found.nbytes > max(_ALWAYS_READ, _MOST_A_BYTE * stored):
        raise RuntimeError(
            f"{where}: {key}: expected data of shape {found.shape}, got {stored} bytes; it may be truncated or damaged."
        )
    return found


def _check(where: str, found: dict[str, Any], key: str, *shapes: tuple[int, ...]) -> None:
    if key in found and found[key].shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{where}: {key}: expected shape {expected}, got {found[key].shape}.")


def _check_unit(where: str, points: np.ndarray) -> None:
    """Reject colours in place of normals; as in text files, normals must have length 1, within 1 %."""
    for cloud in points:  # one by one, since this takes several times their memory
        with np.errstate(over="ignore", invalid="ignore"):
            length = np.linalg.norm(cloud[:, 3:].astype(np.float64), axis=1)
        if not (np.abs(length - 1) < 0.01).all():
            raise ValueError(
                f"{where}: normals=True, but columns 4 to 6 of data are not unit vectors (colours?); set normals=False."
            )


def _names(where: str, node: Any) -> tuple[str, ...]:
    names = _find(where, node, "names")
    _check(where, {"names": names}, "names", names.shape[:1] or (1,))
    try:
        return tuple(names.asstr()[()])
    except Exception as error:
        raise ValueError(f"{where}: names: expected words, got {names.dtype} ({error}).") from error


def _as_labels(where: str, values: np.ndarray, *, least: int = 0) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{where}: expected whole numbers, got dtype {values.dtype}.")
    labels = values.astype(np.int64) if np.isfinite(values).all() else np.full(values.shape, least - 1)
    wrong = (labels != values) | (labels < least)
    if wrong.any():
        none = f", {least} for none" if least else ""
        raise ValueError(
            f"{where}: expected whole numbers from {least} up, got {values[wrong][0]}; number them from 0{none}."
        )
    return labels
