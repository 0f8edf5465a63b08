"""Point clouds in HDF5, in the layout of the published ModelNet40 and ShapeNetPart files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Hdf5Clouds:
    """What one or more files hold of one split.

    Args:
        points: ``(n, N, C)`` real, C = 3, or 6 with normals.
        labels: ``(n,)`` int64.
        part_labels: ``(n, N)`` int64, or None.
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
) -> Hdf5Clouds:
    """Read and join files that hold ``data`` and ``label``, and maybe ``normal``, ``pid``, ``names``.

    Args:
        paths: files, in the order in which their clouds are to be joined.
        group: group inside each file; empty for the top level.
        max_points: keep the first so many points of each cloud; None keeps all.
        normals: also read unit normals, from ``normal`` ``(n, N, 3)`` or columns 4 to 6 of ``data``.
        dtype: what the points are cast to; None keeps the precision of the file, which map coordinates need
            until they are centred.

    Raises:
        ValueError: a data set is missing or has the wrong shape, a label is not a whole number from 0 up, or
            there are no normals.
        TypeError: a data set does not hold numbers.
        RuntimeError: a file cannot be opened as HDF5.
    """
    parts = [_read_one(path, group, max_points, normals, dtype) for path in paths]
    sizes = {part.points.shape[1] for part in parts}
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
    path: Path, group: str, max_points: int | None, normals: bool, dtype: type | None
) -> Hdf5Clouds:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise RuntimeError(
            f"{path}: expected an HDF5 file, got one that cannot be opened ({error}); fetch it again."
        ) from error
    with file:
        where = f"{path}:{group}" if group else str(path)
        node = file[group] if group else file
        missing = {"data", "label"} - set(node)
        if missing:
            raise ValueError(
                f"{where}: expected data sets 'data' and 'label', got {', '.join(sorted(node)) or 'none'}."
            )
        shape = node["data"].shape
        if len(shape) != 3 or shape[2] not in (3, 6):
            raise ValueError(f"{where}: data: expected shape (n, N, 3) or (n, N, 6), got {shape}.")
        if node["data"].dtype.kind not in "fiu":
            raise TypeError(f"{where}: data: expected real numbers, got dtype {node['data'].dtype}.")
        try:
            points = np.asarray(node["data"][:, :max_points], dtype=dtype)
            labels = np.asarray(node["label"][()])
            extra = np.asarray(node["normal"][:, :max_points]) if normals and "normal" in node else None
            pid = np.asarray(node["pid"][:, :max_points]) if "pid" in node else None
        except OSError as error:
            raise RuntimeError(
                f"{where}: expected {shape[0]} clouds, got data that cannot be read ({error}); "
                "fetch it again."
            ) from error
        classes = tuple(node["names"].asstr()[()]) if "names" in node else ()
    if labels.shape not in ((shape[0],), (shape[0], 1)):
        raise ValueError(
            f"{where}: label: expected shape ({shape[0]},) or ({shape[0]}, 1), got {labels.shape}."
        )
    if pid is not None and pid.shape != points.shape[:2]:
        raise ValueError(f"{where}: pid: expected one label per point, {points.shape[:2]}, got {pid.shape}.")
    if normals:
        if extra is not None:
            points = np.concatenate([points[..., :3], extra], axis=-1, dtype=dtype)
        elif shape[2] == 3:
            raise ValueError(
                f"{where}: normals=True, but the file holds xyz alone; set normals=False, or use files that "
                "hold normals (for ModelNet40 the text layout modelnet40_normal_resampled)."
            )
    else:
        points = np.ascontiguousarray(points[..., :3])
    return Hdf5Clouds(
        points=points,
        labels=_as_labels(f"{where}: label", labels.reshape(-1)),
        part_labels=None if pid is None else _as_labels(f"{where}: pid", pid),
        names=tuple(f"{path.name}:{row}" for row in range(shape[0])),
        classes=classes,
    )


def _as_labels(where: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{where}: expected whole numbers, got dtype {values.dtype}.")
    labels = values.astype(np.int64) if np.isfinite(values).all() else np.full(values.shape, -1)
    wrong = (labels != values) | (labels < 0)
    if wrong.any():
        raise ValueError(
            f"{where}: expected whole numbers from 0 up, got {values[wrong][0]}; number them from 0."
        )
    return labels
