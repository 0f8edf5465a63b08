"""Point clouds in HDF5, in the layout of the published ModelNet40 and ShapeNetPart files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bixt3d.io.damage import Parsing

_MOST_A_BYTE = 2000  # bytes that one byte may stand for; deflate reaches 1032
_ALWAYS_READ = 1 << 28  # bytes


@dataclass(frozen=True)
class Hdf5Clouds:
    """What one or more files hold of one split.

    Args:
        points: ``(n, N, C)`` real, C = 3, or 6 with normals.
        labels: ``(n,)`` int64.
        part_labels: ``(n, N)`` int64, -1 for points without a label; or None.
        names: where each cloud came from: ``"file:row"``.
        classes: names of the classes, if a file brings them.
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
    """Read and join files that hold ``data`` and ``label``, and maybe ``normal``, ``pid``, ``names``.

    Args:
        paths: files, in the order in which their clouds are to be joined.
        group: group inside each file; empty for the top level.
        max_points: keep the first so many points of each cloud; None keeps all.
        normals: also read unit normals, from ``normal`` ``(n, N, 3)`` or columns 4 to 6 of ``data``.
        dtype: what the points are cast to; None keeps the precision of the file, which map coordinates need
            until they are centred.
        points: False leaves them in the files: N of ``points`` is then 0.

    Raises:
        ValueError: a data set is missing or has the wrong shape, a label is not a whole number from 0 up (in
            ``pid`` from -1 up), or there are no normals.
        TypeError: a data set does not hold numbers.
        RuntimeError: a file cannot be opened as HDF5.
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
    """Return what one file holds, and the number of points of a cloud."""
    import h5py

    where = f"{path}:{group}" if group else str(path)
    try:
        file = h5py.File(path, "r")
    except Exception as error:  # damage makes it raise anything
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
    """Return an array that is still in the file, if it can be as large as it says."""
    import h5py

    with Parsing(where, f"HDF5 ({key})"):  # damage, or a link to nowhere
        found = node[key]
        is_array = isinstance(found, h5py.Dataset) and found.shape is not None
        stored = found.id.get_storage_size() if is_array and not found.is_virtual else None
        _ = found.dtype if is_array else None  # which may be damaged too
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
    """Refuse colours in the place of normals, by the rule for text: normals have length 1, within 1 %."""
    for cloud in points:  # one by one: this takes several times their memory
        with np.errstate(over="ignore", invalid="ignore"):
            length = np.linalg.norm(cloud[:, 3:].astype(np.float64), axis=1)
        if not (np.abs(length - 1) < 0.01).all():
            raise ValueError(
                f"{where}: normals=True, but columns 4 to 6 of data are no unit vectors (colours?); set normals=False."
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
