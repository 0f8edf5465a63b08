"""Read NumPy files (.npy, .npz)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bixt3d.io.cloud import Cloud, split_columns, unit_normals
from bixt3d.io.damage import Parsing
from bixt3d.io.labels import label_name, whole_labels

_POINT_KEYS = ("points", "pos", "xyz", "data")


def read_npy(path: Path, *, labels: bool = False) -> Cloud:
    """Read an array ``(N, 3 or more)`` as described in :func:`~bixt3d.io.cloud.split_columns`."""
    return split_columns(path, _numbers(path, _load(path)), labels=labels)


def read_npz(path: Path, *, labels: bool = False) -> Cloud:
    """Read an archive with an array of points and, optionally, arrays of normals and labels."""
    archive = _load(path)
    if isinstance(archive, np.ndarray):
        raise RuntimeError(f"{path}: expected a numpy archive, got a single array; rename it to .npy.")
    with archive:
        keys = archive.files
        key = next((key for key in _POINT_KEYS if key in keys), keys[0] if len(keys) == 1 else None)
        if key is None:
            raise ValueError(
                f"{path}: expected an array named one of {', '.join(sorted(_POINT_KEYS))}, "
                f"got {', '.join(sorted(keys)) or 'none'}."
            )
        with Parsing(path, "a numpy archive"):
            points = archive[key]
            normals = archive["normals"] if "normals" in keys else None
            name = label_name(keys) if labels else None
            found = None if name is None else archive[name]
    cloud = split_columns(path, _numbers(path, points), labels=labels and name is None)
    if name is not None and found is not None:
        cloud = replace(cloud, labels=whole_labels(path, name, found, len(cloud)))
    if normals is None:
        return cloud
    normals = _numbers(path, normals)
    if normals.shape != cloud.points.shape:
        raise ValueError(f"{path}: normals: expected shape {cloud.points.shape}, got {normals.shape}.")
    return replace(cloud, normals=unit_normals(normals))


def _load(path: Path):
    with Parsing(path, "a numpy file"):
        return np.load(path, allow_pickle=False)  # a pickle can execute code


def _numbers(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{path}: expected real numbers, got dtype {array.dtype}.")
    return array
