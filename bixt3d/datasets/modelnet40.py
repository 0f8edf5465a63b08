"""ModelNet40: 12,311 shapes of 40 classes, with the official split into train and test."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bixt3d.datasets.cache import cached_array
from bixt3d.datasets.clouds import PointClouds, check_point_counts, check_stored
from bixt3d.datasets.hdf5 import read_hdf5
from bixt3d.datasets.split import check_fraction, check_split, hold_out
from bixt3d.io import unit_sphere

HDF5_FOLDER = "modelnet40_ply_hdf5_2048"
TEXT_FOLDER = "modelnet40_normal_resampled"


class ModelNet40:
    """Load ModelNet40 from either of the two layouts in which it is published.

    *HDF5* (``modelnet40_ply_hdf5_2048``): ``ply_data_{train,test}*.h5`` with ``data`` ``(n, N, 3)`` and ``label``,
    without normals. *Text* (``modelnet40_normal_resampled``): one file of rows ``x,y,z,nx,ny,nz`` per shape, parsed
    once into a cache. Its clouds are off centre, so each is centred and scaled like those in HDF5. This class never
    downloads anything; ``python scripts/prepare_data.py modelnet40`` does.

    There is no official validation split. ``val`` is a share of each class of the official train split, and ``train``
    is the rest.

    Args:
        root: the folder with the files, or its parent.
        num_points: points per cloud that the model will use. The files must hold at least as many.
        stored_points: number of points to keep of each cloud, the first ones; None keeps all. With more than
            ``num_points``, training can draw a new random subset each time.
        normals: also load unit normals (text layout only).
        val_fraction: share of train to hold out as val, in [0, 1). With 0, train is the full official split.
        val_seed: selects which shapes are held out.
        cache: folder for the parsed text layout. None uses a folder beside the data, or the user's cache folder if
            that is not writable.

    Raises:
        FileNotFoundError: there is no ModelNet40 under ``root``.
        ValueError: a number is out of range, or ``normals`` is set with the HDF5 layout.

    Source: Wu et al., "3D ShapeNets", CVPR 2015; the HDF5 layout by Qi et al., "PointNet", CVPR 2017; the
        text layout by Qi et al., "PointNet++", NeurIPS 2017.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        num_points: int = 1024,
        stored_points: int | None = None,
        normals: bool = False,
        val_fraction: float = 0.1,
        val_seed: int = 0,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        check_point_counts(num_points, stored_points)
        check_fraction(val_fraction)
        self.num_points = num_points
        self.stored_points = stored_points
        self.normals = normals
        self.val_fraction = val_fraction
        self.val_seed = val_seed
        self.cache = cache
        self.root, self.layout = find_modelnet40(root, normals=normals)
        if normals and self.layout == "hdf5":
            raise ValueError(
                f"normals=True, but {self.root} is the HDF5 layout, which holds xyz alone; set normals=False "
                f"or use the text layout {TEXT_FOLDER} (python scripts/prepare_data.py {TEXT_FOLDER})."
            )
        self.classes = read_class_names(self.root)

    def load(self, split: str) -> PointClouds:
        """Load one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            The clouds in the order of the files, ``(n, N, 3 or 6)``. Train and val together are the official train
            split.

        Raises:
            FileNotFoundError: a listed file is missing.
            RuntimeError: a file is damaged.
            ValueError: the split is unknown or empty, or the clouds hold fewer than ``num_points`` points.
        """
        check_split(split, self.val_fraction)
        official = "test" if split == "test" else "train"
        clouds = self._load_hdf5(official) if self.layout == "hdf5" else self._load_text(official)
        return clouds if split == "test" else hold_out(clouds, split, self.val_fraction, self.val_seed)

    def _load_hdf5(self, official: str) -> PointClouds:
        paths = sorted(self.root.glob(f"ply_data_{official}*.h5"))
        if not paths:
            raise FileNotFoundError(
                f"{self.root}: no ply_data_{official}*.h5; fetch it: "
                "python scripts/prepare_data.py modelnet40"
            )
        found = read_hdf5(paths, max_points=self.stored_points)
        check_stored(self.root, found.points.shape[1], self.num_points, self.stored_points)
        return PointClouds(found.points, found.labels, self.classes, found.names)

    def _load_text(self, official: str) -> PointClouds:
        names, owners, files = text_shapes(self.root, official)
        stored = self.stored_points or len(read_rows(files[0]))
        check_stored(files[0], stored, self.num_points, None)
        # always with normals, so that one cache serves both settings
        points = cached_array(
            name=official,
            root=self.root,
            files=files,
            settings={"layout": "text", "stored_points": self.stored_points},
            shape=(len(files), stored, 6),
            parse=lambda i: parse_shape(files[i], stored),
            folder=self.cache,
        )
        if not self.normals:
            points = np.ascontiguousarray(points[..., :3])
        labels = np.array([self.classes.index(owner) for owner in owners], dtype=np.int64)
        return PointClouds(points, labels, self.classes, names)


def find_modelnet40(root: str | os.PathLike[str], *, normals: bool = False) -> tuple[Path, str]:
    """Return the folder at or under ``root`` that holds ModelNet40, and its layout, ``"hdf5"`` or ``"text"``.

    If both layouts are there, HDF5 takes precedence, unless ``normals`` is set.

    Raises:
        FileNotFoundError: there is no ModelNet40 under ``root``.
    """
    root = Path(root)
    layouts = [("hdf5", HDF5_FOLDER, "ply_data_train*.h5"), ("text", TEXT_FOLDER, "modelnet40_train.txt")]
    for layout, name, files in reversed(layouts) if normals else layouts:
        for folder in (root, root / name):
            if any(folder.glob(files)):
                return folder, layout
    name, brought = (TEXT_FOLDER, TEXT_FOLDER) if normals else ("modelnet40", HDF5_FOLDER)
    parent = root.parent if root.name == brought else root  # the archive contains that folder
    raise FileNotFoundError(
        f"{root}: no ModelNet40 here (neither ply_data_train*.h5 nor modelnet40_train.txt); name the folder "
        "that holds it (data.root=DIR or --root DIR), or fetch it: "
        f"python scripts/prepare_data.py {name} --root {parent}"
    )


def read_class_names(folder: Path) -> tuple[str, ...]:
    """Read the class names of either layout, in label order; raises FileNotFoundError if there is no list."""
    for name in ("shape_names.txt", "modelnet40_shape_names.txt"):
        if (folder / name).is_file():
            return tuple((folder / name).read_text().split())
    raise FileNotFoundError(
        f"{folder}: no list of class names (shape_names.txt or modelnet40_shape_names.txt); "
        "fetch it: python scripts/prepare_data.py modelnet40"
    )


def text_shapes(folder: Path, split: str) -> tuple[tuple[str, ...], list[str], list[Path]]:
    """List the shapes of a split of the text layout.

    Returns:
        Names, class names and files of the shapes, in the order of the split list.

    Raises:
        FileNotFoundError: the split list or one of the files is missing.
        RuntimeError: the list is empty, or a shape has an unknown class.
    """
    listing = folder / f"modelnet40_{split}.txt"
    if not listing.is_file():
        raise FileNotFoundError(
            f"{listing}: the split list is missing; fetch it: python scripts/prepare_data.py {TEXT_FOLDER}"
        )
    names = tuple(listing.read_text().split())
    if not names:
        raise RuntimeError(f"{listing}: expected one shape per line, got none; fetch it again.")
    owners = [name.rsplit("_", 1)[0] for name in names]
    unknown = set(owners) - set(read_class_names(folder))
    if unknown:
        name = names[owners.index(min(unknown))]
        raise RuntimeError(
            f"{listing}: shape {name!r} belongs to none of the listed classes; fetch it again."
        )
    files = [folder / owner / f"{name}.txt" for owner, name in zip(owners, names, strict=True)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]}: {len(missing)} of {len(files)} shapes are missing; fetch them: "
            f"python scripts/prepare_data.py {TEXT_FOLDER}"
        )
    return names, owners, files


def read_rows(path: Path, max_rows: int | None = None) -> np.ndarray:
    """Read a shape of the text layout, ``(N, 6)`` float64: xyz and normal."""
    try:
        rows = np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=2, max_rows=max_rows)
    except ValueError as error:
        raise RuntimeError(f"{path}: expected rows x,y,z,nx,ny,nz, got: {error}; fetch it again.") from error
    if rows.shape[1] != 6:
        raise RuntimeError(f"{path}: expected 6 columns, got {rows.shape[1]}; fetch it again.")
    return rows


def parse_shape(path: Path, num_points: int) -> np.ndarray:
    """Read the first points of a shape, centred and scaled, ``(num_points, 6)`` float32."""
    rows = read_rows(path, num_points)
    if len(rows) < num_points:
        raise RuntimeError(f"{path}: expected at least {num_points} points, got {len(rows)}; fetch it again.")
    return np.concatenate([unit_sphere(rows[:, :3]), rows[:, 3:].astype(np.float32)], axis=1)
