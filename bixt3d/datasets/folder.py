"""Your own clouds: a folder per class, or HDF5 files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bixt3d.datasets.cache import cached_array
from bixt3d.datasets.clouds import PointClouds, check_point_counts
from bixt3d.datasets.folder_hdf5 import Hdf5Source, split_words
from bixt3d.datasets.folder_parts import LISTING, classes_of_parts, labels_of, read_names
from bixt3d.datasets.split import check_fraction, check_split, hold_out
from bixt3d.io import FORMATS, check_axis, read_points, turn_to_y, unit_sphere

LAYOUT = (
    "expected root/train/<class>/<file> and root/test/<class>/<file>, or root/<class>/train/<file> and so on, or HDF5 "
    "files with the word train in their names"
)


class Folder:
    """Read clouds of your own, in any unit: each is centred, scaled to the unit sphere, and turned so that y is up.

    *Folders*: ``root/train/<class>/<file>`` and ``root/test/<class>/<file>``, or the class first, as in the meshes of
    ModelNet: ``root/<class>/train/<file>``. Files of any format of :func:`bixt3d.io.read_points`, mixed as you like;
    files of other suffixes are passed over. With ``part_names``, or a file ``part_names.txt`` in ``root``, one name a
    line, the files also have to label their points (:func:`bixt3d.io.read_points`): label i is the part of name i,
    counted from 0 over all classes, and -1 is none. The classes are then those that the parts name, in that order.

    *HDF5*: ``root`` is a folder with files that have the word ``train`` or ``test`` in their names, never both, such
    as ``mine_train0.h5``, or one ``.h5`` file with the groups ``train`` and ``test``, or one with the data sets at
    the top (all of it is train). These are ``data`` ``(n, N, 3)`` (or 6, with normals), ``label`` ``(n,)`` or
    ``(n, 1)``, and where you have them ``normal`` ``(n, N, 3)``, ``pid`` ``(n, N)`` part labels, ``names`` the class
    names; files ``shape_names.txt`` and ``part_names.txt`` beside them, one name a line, serve for the names too.

    A third folder, group or file called ``val`` is the validation split; without one, a part of train is
    held out class by class. Every cloud is brought to ``stored_points`` points in random order: a subset
    where it has more, with repetitions where it has fewer; meshes are sampled by area. What is drawn from
    a cloud depends on ``seed`` and its name alone. Folders are parsed once, into a cache.

    Args:
        root: the folder or the file.
        num_points: points that a model is to see per cloud.
        stored_points: points to keep of each cloud, at least ``num_points``.
        normals: also load unit normals; every file must have them (meshes do).
        val_fraction: share of train held out as val, in [0, 1), where there is no ``val``.
        val_seed: picks which clouds are held out.
        seed: seed of the draw of points.
        up: the axis that is up in the files: ``"x"``, ``"y"`` or ``"z"``.
        class_names: names of the classes, in label order, for HDF5 files that bring none.
        part_names: names of the parts, ``"class/part"``, in label order; those of a class follow each other. Without
            them labels in a tree of folders are passed over, and ``pid`` of HDF5 files is numbered.
        cache: folder for the parsed files; None for one beside ``root``, or the user's cache folder where
            that cannot be written.

    Raises:
        FileNotFoundError: there is nothing of this form at ``root``.
        ValueError: a class has no files or no part, or test has a class that train lacks; or a number is out of range,
            or there is no such axis.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        num_points: int = 1024,
        stored_points: int = 2048,
        normals: bool = False,
        val_fraction: float = 0.1,
        val_seed: int = 0,
        seed: int = 0,
        up: str = "y",
        class_names: Sequence[str] | None = None,
        part_names: Sequence[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        check_point_counts(num_points, stored_points)
        check_fraction(val_fraction)
        check_axis(up)
        self.root = Path(root)
        self.num_points = num_points
        self.stored_points = stored_points
        self.normals = normals
        self.val_fraction = val_fraction
        self.val_seed = val_seed
        self.seed = seed
        self.up = up
        self.cache = cache
        self._hdf5: Hdf5Source | None = None
        if not self.root.exists():
            raise FileNotFoundError(f"{self.root}: there is no such folder or file; {LAYOUT}.")
        self._class_first = False
        if self.root.is_file() or any("train" in split_words(p) for p in self.root.glob("*.h5")):
            self._hdf5 = Hdf5Source(self.root, class_names=class_names, part_names=part_names)
            self.classes = self._hdf5.classes
            self.parts = self._hdf5.parts
        else:
            if class_names is not None:
                raise ValueError(
                    "class_names: name what HDF5 files number; in a tree of folders the folders name the classes, so "
                    "leave it out."
                )
            self._class_first = not (self.root / "train").is_dir() and any(
                map(_is_cloud, self.root.glob("*/train/*"))
            )
            self.classes = self._class_folders()
            self.parts = read_names(self.root, LISTING) if part_names is None else tuple(part_names)
            if self.parts:
                self.classes = classes_of_parts(self.parts, self.classes)

    def load(self, split: str) -> PointClouds:
        """Read one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            The clouds in the order of their names, ``(n, stored_points, 3 or 6)``, with part labels where
            the files have them.

        Raises:
            FileNotFoundError: there is no such split.
            ValueError: the split is unknown or empty, or a file cannot be used; the message names it.
            RuntimeError: a file is damaged; the message names it.
        """
        own_val = self._has("val")
        check_split(split, 1.0 if own_val else self.val_fraction)
        whole = own_val or split == "test"
        official = split if whole else "train"
        if not self._has(official):
            raise FileNotFoundError(f"{self.root}: there is no {official} split here; {LAYOUT}.")
        clouds = self._load_hdf5(official) if self._hdf5 is not None else self._load_folders(official)
        return clouds if whole else hold_out(clouds, split, self.val_fraction, self.val_seed)

    def _has(self, split: str) -> bool:
        if self._hdf5 is not None:
            return self._hdf5.has(split)
        return bool(self._folders(split)) if self._class_first else (self.root / split).is_dir()

    def _folders(self, split: str) -> dict[str, Path]:
        """Return the folder of each class that has one in the split."""
        if self._class_first:
            places = {name: self.root / name / split for name in _folders(self.root)}
            return {name: place for name, place in places.items() if place.is_dir()}
        return {name: self.root / split / name for name in _folders(self.root / split)}

    def _class_folders(self) -> tuple[str, ...]:
        if not self._has("train"):
            raise FileNotFoundError(f"{self.root}: there is no train folder here; {LAYOUT}.")
        classes = self._folders("train")
        if not classes:
            raise ValueError(f"{self.root / 'train'}: there is no class folder here; {LAYOUT}.")
        for split in ("val", "test"):
            found = self._folders(split) if self._has(split) else {}
            unknown = set(found) - set(classes)
            if unknown:
                raise ValueError(
                    f"{found[min(unknown)].parent}: class {min(unknown)!r} is not in train; add clouds of it to train "
                    f"or remove it. Classes of train: {', '.join(classes)}."
                )
        for place in classes.values():
            _files(place)  # complain at once about a class without clouds
        return tuple(classes)

    def _load_folders(self, split: str) -> PointClouds:
        files, labels = [], []
        for name, place in self._folders(split).items():
            found = _files(place)
            files += found
            labels += [self.classes.index(name)] * len(found)
        names = tuple(file.relative_to(self.root).as_posix() for file in files)
        channels = (6 if self.normals else 3) + bool(self.parts)
        rows = cached_array(
            name=split,
            root=self.root,
            files=files,
            settings={
                "stored_points": self.stored_points,
                "normals": self.normals,
                "seed": self.seed,
                "up": self.up,
                **({"labels": True} if self.parts else {}),
            },
            shape=(len(files), self.stored_points, channels),
            parse=lambda i: self._parse(files[i], names[i]),
            folder=self.cache,
        )
        points, parts = (rows[..., :-1], rows[..., -1].astype(np.int64)) if self.parts else (rows, None)
        return PointClouds(
            points, np.array(labels, dtype=np.int64), self.classes, names, part_labels=parts, parts=self.parts
        )

    def _parse(self, file: Path, name: str) -> np.ndarray:
        """Read a cloud as it is kept, ``(stored_points, 3 or 6)`` float32, with parts their labels in a last column."""
        seed = cloud_seed(self.seed, name)
        cloud = read_points(file, num_samples=self.stored_points, seed=seed, labels=bool(self.parts))
        cloud = cloud.turned(self.up)
        if self.normals and cloud.normals is None:
            raise ValueError(f"{file}: normals=True, but the file has no usable normals; set normals=False.")
        if (cloud.points == cloud.points[0]).all():
            raise ValueError(f"{file}: all points coincide, so the cloud has no size; remove the file.")
        index = resample_index(len(cloud), self.stored_points, np.random.default_rng(seed))
        # normalised after the draw: the mean and the largest radius are those of the points that are kept
        columns = [unit_sphere(cloud.points[index])]
        if self.normals and cloud.normals is not None:
            columns.append(cloud.normals[index])
        if self.parts:
            columns.append(labels_of(cloud)[index, None])
        return np.concatenate(columns, axis=1, dtype=np.float32)

    def _load_hdf5(self, split: str) -> PointClouds:
        assert self._hdf5 is not None
        found = self._hdf5.read(split, normals=self.normals)
        index = np.stack(
            [
                resample_index(
                    found.points.shape[1],
                    self.stored_points,
                    np.random.default_rng(cloud_seed(self.seed, f"{split}/{name}")),
                )
                for name in found.names
            ]
        )
        points = np.empty((*index.shape, found.points.shape[2]), dtype=np.float32)
        for row, drawn in enumerate(index):  # cloud by cloud: float64 takes twice the memory
            cloud = found.points[row, drawn]
            points[row, :, :3] = unit_sphere(turn_to_y(cloud[:, :3], self.up))
            if self.normals:
                points[row, :, 3:] = turn_to_y(cloud[:, 3:], self.up)
        pid = found.part_labels
        return PointClouds(
            points=points,
            labels=found.labels,
            classes=self.classes,
            names=found.names,
            part_labels=None if pid is None else np.take_along_axis(pid, index, axis=1),
            parts=self.parts,
        )


def cloud_seed(seed: int, name: str) -> int:
    """Derive a seed for one cloud that depends on no other cloud and on no platform."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")


def resample_index(count: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``wanted`` of ``count`` points in random order; none occurs twice before all occurred once."""
    rounds = [rng.permutation(count) for _ in range(-(-wanted // count))]
    return np.concatenate(rounds)[:wanted]


def _folders(parent: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")))


def _files(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    clouds = sorted(filter(_is_cloud, found))
    if not clouds:
        raise ValueError(
            f"{folder}: none of the {len(found)} files of this class is of a known format; add files of one "
            f"of {', '.join(FORMATS)}, or remove the folder."
        )
    return clouds


def _is_cloud(path: Path) -> bool:
    return path.suffix.lower() in FORMATS
