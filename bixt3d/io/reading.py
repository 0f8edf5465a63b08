"""Read a point cloud from a file of any supported format, which its suffix determines."""

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
    """Read a point cloud, or sample one from a mesh.

    Points of files without faces are returned unchanged and in order. A file with faces is sampled uniformly by area,
    and each sample gets the normal of its face.

    Formats:

    - ``.ply`` ``.obj`` ``.off`` ``.glb`` ``.gltf``: points or faces. ``.stl``: faces.
    - ``.las`` ``.laz``: points, z up.
    - ``.pcd``: ascii, binary and compressed. Missing returns (NaN) are dropped.
    - ``.xyz`` ``.pts`` ``.txt`` ``.asc`` ``.csv``: rows of 3 or more numbers, separated by spaces, commas, semicolons
      or tabs. ``.xyzn`` ``.xyzrgb``: such rows with normals or colours.
    - ``.npy``: an array ``(N, 3 or more)``. ``.npz``: such an array named ``points``, ``pos``, ``xyz`` or ``data``
      (or the only one), and optionally ``normals``.

    In bare arrays and rows without a header, columns 4 to 6 are taken as normals only if they are unit vectors.

    The header of a text file must name x, y and z, in any order and case, or Points:0 to Points:2 as in ParaView. The
    columns nx, ny and nz are the normals. Other columns are ignored and may contain words. A comment above the rows is
    used as a header if it has one name for each column, including x, y and z.

    Labels of points, such as parts, are whole numbers named ``label``, ``labels``, ``part``, ``classification`` or
    ``class``, in any case, with or without the prefix ``scalar_`` (CloudCompare). They are a property in ``.ply``, a
    field in ``.pcd``, an array in ``.npz``, a named column in text files, and a dimension in ``.las`` and ``.laz``. In
    bare arrays and rows without a header they are the last of 4 columns (x y z label) or of 7 (x y z nx ny nz label).
    NaN, which CloudCompare writes for points without a value, becomes -1.

    Args:
        path: the file.
        num_samples: number of points to sample from a mesh; None samples 10,000. Ignored for files of points.
        seed: seed of the sampling. The same file, number and seed give the same points.
        labels: also read labels, except from meshes.

    Returns:
        A :class:`Cloud` with float64 coordinates in the unit of the file, normals if the file has them, and labels if
        the file has them and they were requested.

    Raises:
        FileNotFoundError: the file, or a data file that a ``.gltf`` refers to, does not exist.
        ValueError: the path is a folder, the suffix is unknown, the file has no points, too few columns or NaN
            coordinates, a ``.glb`` or ``.gltf`` uses unsupported features, ``num_samples`` is not positive, or
            requested labels are not whole numbers.
        TypeError: a numpy array does not hold real numbers.
        RuntimeError: the file is empty, truncated or cannot be parsed.
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
