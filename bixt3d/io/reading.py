"""The one entry point for reading a cloud: the file's suffix picks the parser."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bixt3d.io.arrays import read_npy, read_npz
from bixt3d.io.cloud import Cloud
from bixt3d.io.gltf import read_gltf
from bixt3d.io.las import read_las
from bixt3d.io.mesh import Mesh, read_mesh
from bixt3d.io.pcd import read_pcd
from bixt3d.io.ply import read_ply
from bixt3d.io.text import read_text

_READERS: dict[str, Callable[..., Cloud | Mesh]] = {
    **dict.fromkeys((".glb", ".gltf"), read_gltf),
    **dict.fromkeys((".las", ".laz"), read_las),
    **dict.fromkeys((".obj", ".off", ".stl"), read_mesh),
    ".npy": read_npy,
    ".npz": read_npz,
    ".pcd": read_pcd,
    ".ply": read_ply,
    **dict.fromkeys((".asc", ".csv", ".pts", ".txt", ".xyz", ".xyzn", ".xyzrgb"), read_text),
}

FORMATS: tuple[str, ...] = tuple(sorted(_READERS))
"""The suffixes that :func:`read_points` reads."""

DEFAULT_SAMPLES = 10_000


def read_points(
    path: str | os.PathLike[str], *, num_samples: int | None = None, seed: int = 0, labels: bool = False
) -> Cloud:
    """Read one point cloud, or sample one from a mesh.

    Files without faces are kept as they are, in their own order. A file with faces is sampled uniformly by
    area, and each sample carries the normal of its face.

    What the formats hold: ``.ply`` ``.obj`` ``.off`` ``.glb`` ``.gltf`` points or faces; ``.stl`` faces; ``.las``
    ``.laz`` points, z up; ``.pcd`` ascii, binary and compressed, of which missing returns (NaN) are left out; ``.xyz``
    ``.pts`` ``.txt`` ``.asc`` ``.csv`` rows of 3 or more numbers, separated by spaces, commas, semicolons or tabs;
    ``.xyzn`` ``.xyzrgb`` such rows with normals and with colours; ``.npy`` an array ``(N, 3 or more)``; ``.npz`` such
    an array under ``points``, ``pos``, ``xyz`` or ``data`` (or alone), optionally ``normals``. In bare arrays and rows
    without a header, columns 4 to 6 are taken as normals only when they are unit vectors.

    A header of a text file has to name x, y and z, in any order and case, or Points:0 to Points:2 as ParaView does;
    nx, ny and nz are the normals, and further columns, which may hold words, are passed over. A comment above the
    rows is such a header where it has one name for each column, x, y and z among them, and else is passed over.

    Labels of the points, such as parts, are whole numbers called ``label``, ``labels``, ``part``, ``classification`` or
    ``class``, in any case, with or without ``scalar_`` before it (CloudCompare): a property of ``.ply``, a field of
    ``.pcd``, an array of ``.npz``, a named column of a text file, a dimension of ``.las`` and ``.laz``. In bare arrays
    and rows without a header they are the last of 4 columns (x y z label), or of 7 (x y z nx ny nz label). NaN, which
    CloudCompare gives points without a value, becomes -1.

    Args:
        path: the file.
        num_samples: points to draw from a mesh; None draws 10,000. Without effect on a file of points.
        seed: seed of that draw: the same file, number and seed give the same points.
        labels: also read labels; those of a mesh are passed over.

    Returns:
        A :class:`Cloud`: float64 coordinates in the unit of the file, normals where the file has them, and labels
        where it has them and they are asked for.

    Raises:
        FileNotFoundError: there is no such file, or not the one beside a ``.gltf`` that holds its numbers.
        ValueError: the path is a folder, the suffix is unknown, the file has no points, too few columns, or NaN, or is
            a ``.glb`` or ``.gltf`` of a kind that is not read; or ``num_samples`` is not positive, or labels are
            asked for and are no whole numbers.
        RuntimeError: the file is truncated or cannot be parsed.
        ImportError: the parser of the format is not installed.
    """
    path = Path(path)
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {num_samples}.")
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder; check the path.")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, got a folder; read its files one by one.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: unknown format {path.suffix!r}, expected one of {', '.join(FORMATS)}.")
    if path.stat().st_size == 0:
        raise RuntimeError(f"{path}: the file is empty (0 bytes); fetch or export it again.")
    found = reader(path) if reader in (read_gltf, read_mesh) else reader(path, labels=labels)
    if isinstance(found, Mesh):
        return found.sample(num_samples or DEFAULT_SAMPLES, np.random.default_rng(seed))
    return found
