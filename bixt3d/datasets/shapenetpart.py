"""ShapeNetPart: 16,881 shapes of 16 categories with 50 parts, with the official split."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from bixt3d.datasets.cache import cached_rows
from bixt3d.datasets.clouds import PointClouds
from bixt3d.datasets.folder import cloud_seed
from bixt3d.datasets.hdf5 import read_hdf5
from bixt3d.datasets.split import check_split
from bixt3d.io import unit_sphere

TEXT_FOLDER = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
# Number of parts of each category, in label order. The 50 part labels are numbered consecutively.
NUM_PARTS = {
    "Airplane": 4,
    "Bag": 2,
    "Cap": 2,
    "Car": 4,
    "Chair": 4,
    "Earphone": 3,
    "Guitar": 3,
    "Knife": 2,
    "Lamp": 4,
    "Laptop": 2,
    "Motorbike": 6,
    "Mug": 2,
    "Pistol": 3,
    "Rocket": 3,
    "Skateboard": 3,
    "Table": 3,
}
WHERE = "get the data set as described in data/README.md and name its folder with data.root=DIR"


class ShapeNetPart:
    """Load ShapeNetPart from either of the two layouts in which it is published.

    *Text* (``shapenetcore_partanno_segmentation_benchmark_v0_normal``): one file of rows ``x y z nx ny nz label`` per
    shape, ``synsetoffset2category.txt``, and the split lists in ``train_test_split``. Shapes differ in size, and all
    points are kept. The files are parsed once into a cache. *HDF5*: ``ply_data_{train,val,test}*.h5`` with ``data``
    ``(n, 2048, 3)``, ``label`` and ``pid``, without normals.

    Shapes are in the order of their names (text) or of the files and rows (HDF5). Each is centred and scaled to the
    unit sphere using all its points, which are then shuffled with a seed derived from ``seed`` and the name of the
    shape. So the first n points are a fair subset. With ``train.eval_sampling=first``, evaluation uses 2,048 random
    points like the papers, but the same ones every time.

    The official lists overlap: 23 of the 2,874 test shapes are also in train and 3 in val. They are used unchanged,
    as in every published result.

    Args:
        root: the folder with the files.
        num_points: points per cloud that the model will use. Smaller shapes repeat their points.
        normals: also load unit normals (text layout only).
        trainval: use train and val together as ``train``, as papers do. There is then no ``val``.
        seed: seed of the order of points.
        cache: folder for the parsed text layout. None uses a folder beside the data, or the user's cache folder if
            that is not writable.

    Raises:
        FileNotFoundError: there is no ShapeNetPart at ``root``.
        RuntimeError: the list of categories is not that of ShapeNetPart.
        ValueError: ``normals`` is set with the HDF5 layout, or a number is out of range.

    Source: Yi et al., "A Scalable Active Framework for Region Annotation in 3D Shape Collections", 2016;
        the text layout by Qi et al., "PointNet++", NeurIPS 2017.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        num_points: int = 2048,
        normals: bool = False,
        trainval: bool = False,
        seed: int = 0,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        if num_points < 1:
            raise ValueError(f"num_points: expected at least 1, got {num_points}.")
        self.root = Path(root)
        self.num_points = num_points
        self.normals = normals
        self.trainval = trainval
        self.seed = seed
        self.cache = cache
        self.classes = tuple(NUM_PARTS)
        self.parts = tuple(f"{name}/part {i}" for name, count in NUM_PARTS.items() for i in range(count))
        listing = self.root / "synsetoffset2category.txt"
        if listing.is_file():
            self.layout = "text"
            self._category = _read_categories(listing)
        elif any(self.root.glob("ply_data_train*.h5")):
            self.layout = "hdf5"
        else:
            raise FileNotFoundError(
                f"{self.root}: no ShapeNetPart here (no synsetoffset2category.txt, no ply_data_train*.h5); {WHERE}."
            )
        if normals and self.layout == "hdf5":
            raise ValueError(
                f"normals=True, but {self.root} is the HDF5 layout, which holds xyz alone; set normals=False or use "
                f"the text layout {TEXT_FOLDER}."
            )

    def load(self, split: str) -> PointClouds:
        """Load one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            The shapes with part labels and, in ``counts``, the number of points of each shape.

        Raises:
            FileNotFoundError: a split list or a listed file is missing.
            ValueError: the split is unknown, or is ``"val"`` although ``trainval`` is set.
            RuntimeError: a file is damaged; the message names it.
        """
        check_split(split)
        if split == "val" and self.trainval:
            raise ValueError(
                "split: 'val' is a part of train with trainval=true; set train.select_on=null or data.trainval=false."
            )
        names = ("train", "val") if split == "train" and self.trainval else (split,)
        return self._load_text(names) if self.layout == "text" else self._load_hdf5(names)

    def _load_text(self, splits: tuple[str, ...]) -> PointClouds:
        names = sorted(name for split in splits for name in read_split(self.root, split))
        unknown = [name for name in names if name.split("/")[0] not in self._category]
        if unknown:
            raise RuntimeError(
                f"{self.root}: shape {unknown[0]!r} of the split lists belongs to no category in "
                f"synsetoffset2category.txt; {WHERE}."
            )
        files = [self.root / f"{name}.txt" for name in names]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{missing[0]}: {len(missing)} of {len(files)} shapes of the split lists are missing; {WHERE}."
            )
        rows, offsets = cached_rows(
            name="+".join(splits),
            root=self.root,
            files=files,
            settings={"layout": "text", "seed": self.seed},
            channels=7,
            parse=lambda i: self._parse(files[i], names[i]),
            folder=self.cache,
        )
        counts = np.diff(offsets)
        stored = max(int(counts.max()), self.num_points)
        channels = 6 if self.normals else 3
        points = np.empty((len(names), stored, channels), dtype=np.float32)
        part_labels = np.empty((len(names), stored), dtype=np.int64)
        for i, (start, count) in enumerate(zip(offsets[:-1], counts, strict=True)):
            repeated = np.resize(rows[start : start + count], (stored, 7))
            points[i], part_labels[i] = repeated[:, :channels], repeated[:, 6]
        return PointClouds(
            points=points,
            labels=np.array([self._category[name.split("/")[0]] for name in names], dtype=np.int64),
            classes=self.classes,
            names=tuple(names),
            part_labels=part_labels,
            parts=self.parts,
            counts=counts,
        )

    def _parse(self, file: Path, name: str) -> np.ndarray:
        """Read a shape, centred, scaled and shuffled, ``(n, 7)`` float32."""
        try:
            rows = np.loadtxt(file, dtype=np.float64, ndmin=2)
        except ValueError as error:
            raise RuntimeError(f"{file}: expected rows of 7 numbers, got: {error}; {WHERE}.") from error
        if rows.shape[0] == 0 or rows.shape[1] != 7:
            raise RuntimeError(f"{file}: expected rows of 7 numbers, got shape {rows.shape}; {WHERE}.")
        order = np.random.default_rng(cloud_seed(self.seed, name)).permutation(len(rows))
        return np.concatenate([unit_sphere(rows[:, :3]), rows[:, 3:].astype(np.float32)], axis=1)[order]

    def _load_hdf5(self, splits: tuple[str, ...]) -> PointClouds:
        paths = [path for split in splits for path in sorted(self.root.glob(f"ply_data_{split}*.h5"))]
        if not paths:
            raise FileNotFoundError(f"{self.root}: no ply_data_{splits[0]}*.h5; {WHERE}.")
        found = read_hdf5(paths)
        if found.part_labels is None:
            raise RuntimeError(f"{paths[0]}: expected part labels 'pid', got none; {WHERE}.")
        count = found.points.shape[1]
        stored = max(count, self.num_points)
        index = np.stack(
            [
                np.resize(np.random.default_rng(cloud_seed(self.seed, name)).permutation(count), stored)
                for name in found.names
            ]
        )
        return PointClouds(
            points=np.take_along_axis(unit_sphere(found.points), index[..., None], axis=1),
            labels=found.labels,
            classes=self.classes,
            names=found.names,
            part_labels=np.take_along_axis(found.part_labels, index, axis=1),
            parts=self.parts,
            counts=np.full(len(found.names), count, dtype=np.int64),
        )


def read_split(root: Path, split: str) -> list[str]:
    """Read a split list of the text layout; returns sorted names ``"category folder/shape"``.

    Raises:
        FileNotFoundError: the list is missing.
        RuntimeError: the list is damaged or empty.
    """
    listing = root / "train_test_split" / f"shuffled_{split}_file_list.json"
    if not listing.is_file():
        raise FileNotFoundError(f"{listing}: the split list is missing; {WHERE}.")
    try:
        names = json.loads(listing.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RuntimeError(f"{listing}: expected a JSON list, got: {error}; {WHERE}.") from error
    if not names:
        raise RuntimeError(f"{listing}: expected at least one shape, got none; {WHERE}.")
    return sorted(name.removeprefix("shape_data/") for name in names)


def _read_categories(listing: Path) -> dict[str, int]:
    """Return the category number of each folder, which is the number of its line in the list."""
    lines = [line.split() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = [line[0] for line in lines]
    if names != list(NUM_PARTS) or any(len(line) != 2 for line in lines):
        raise RuntimeError(
            f"{listing}: expected the 16 categories {', '.join(NUM_PARTS)}, each with its folder, got "
            f"{', '.join(names) or 'none'}; {WHERE}."
        )
    return {folder: i for i, (_, folder) in enumerate(lines)}
