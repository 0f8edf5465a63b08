"""ScanObjectNN: objects of 15 classes from scans of rooms, with the official split into train and test."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bixt3d.datasets.clouds import PointClouds, check_point_counts, check_stored
from bixt3d.datasets.hdf5 import read_hdf5
from bixt3d.datasets.split import check_fraction, check_split, hold_out
from bixt3d.io import unit_sphere

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink",
    "sofa", "toilet",
)  # fmt: skip
# Folder and file of each variant. Names of train files start with "training_", those of test files with "test_".
VARIANTS = {
    "obj_only": ("main_split_nobg", "objectdataset.h5"),
    "obj_bg": ("main_split", "objectdataset.h5"),
    "pb_t25": ("main_split", "objectdataset_augmented25_norot.h5"),
    "pb_t25_r": ("main_split", "objectdataset_augmented25rot.h5"),
    "pb_t50_r": ("main_split", "objectdataset_augmentedrot.h5"),
    "pb_t50_rs": ("main_split", "objectdataset_augmentedrot_scale75.h5"),
}
WHERE = (
    "ScanObjectNN is available only from its authors (https://hkust-vgd.github.io/scanobjectnn); unpack their "
    "h5_files and set data.root to that folder"
)


class ScanObjectNN:
    """Load ScanObjectNN from its published HDF5 files: ``data`` ``(n, 2048, 3)`` and ``label``, y up.

    Nothing is downloaded, since the authors provide the data set on request. Clouds are centred and scaled like those
    of the other data sets. ``mask``, which marks background points, is not read.

    There is no official validation split. ``val`` is a share of each class of train. **In the perturbed variants
    (``pb_...``), val contains other perturbations of objects in train**, since the files do not say which clouds show
    the same object. Accuracy on val is then too high, and selecting weights by it favours overfitting. Report the
    last weights, or make such choices on ``obj_bg``.

    Args:
        root: the folder that holds ``main_split`` and ``main_split_nobg``, or its parent.
        variant: ``"obj_only"`` (objects alone), ``"obj_bg"`` (with their surroundings), or with surroundings and
            perturbed: translated by up to 25 % of the bounding box (``"pb_t25"``), also rotated (``"pb_t25_r"``, or
            ``"pb_t50_r"`` with 50 %), also scaled (``"pb_t50_rs"``, the hardest, which most papers report).
        num_points: points per cloud that the model will use. The files must hold at least as many.
        stored_points: number of points to keep of each cloud, the first ones; None keeps all. With more than
            ``num_points``, training can draw a new random subset each time.
        val_fraction: share of train to hold out as val, in [0, 1). With 0, train is the full official split.
        val_seed: selects which clouds are held out.

    Raises:
        FileNotFoundError: the variant is not under ``root``.
        ValueError: the variant is unknown, or a number is out of range.

    Source: Uy et al., "Revisiting Point Cloud Classification", ICCV 2019; order of the classes from the authors'
        public files.
    """

    classes = CLASSES

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        variant: str = "pb_t50_rs",
        num_points: int = 1024,
        stored_points: int | None = None,
        val_fraction: float = 0.1,
        val_seed: int = 0,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(
                f"variant: unknown value {variant!r}, expected one of {', '.join(sorted(VARIANTS))}."
            )
        check_point_counts(num_points, stored_points)
        check_fraction(val_fraction)
        self.variant = variant
        self.num_points = num_points
        self.stored_points = stored_points
        self.val_fraction = val_fraction
        self.val_seed = val_seed
        folder, name = VARIANTS[variant]
        places = [Path(root, folder), Path(root, "h5_files", folder)]
        found = [place for place in places if (place / f"training_{name}").is_file()]
        if not found:
            raise FileNotFoundError(f"{places[0] / f'training_{name}'}: no such file; {WHERE}.")
        self.root = found[0]

    def load(self, split: str) -> PointClouds:
        """Load one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            The clouds in the order of the file, ``(n, N, 3)``. Train and val together are the official train split.

        Raises:
            FileNotFoundError: the file is missing.
            RuntimeError: the file is damaged.
            ValueError: the split is unknown or empty, or the clouds hold fewer than ``num_points`` points.
        """
        check_split(split, self.val_fraction)
        path = self.root / f"{'test' if split == 'test' else 'training'}_{VARIANTS[self.variant][1]}"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; {WHERE}.")
        found = read_hdf5([path])
        check_stored(path, found.points.shape[1], self.num_points, self.stored_points)
        # centred before points are dropped, as in prediction
        points = np.ascontiguousarray(unit_sphere(found.points)[:, : self.stored_points])
        clouds = PointClouds(points, found.labels, self.classes, found.names)
        return clouds if split == "test" else hold_out(clouds, split, self.val_fraction, self.val_seed)
