"""Load your own data: a folder per class, or HDF5 files."""

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
    """Load your own clouds, in any unit. Each is centred, scaled to the unit sphere, and turned so that y is up.

    *Folders*: ``root/train/<class>/<file>`` and ``root/test/<class>/<file>``, or the class first, as in the meshes of
    ModelNet: ``root/<class>/train/<file>``. The files can be in any mix of the formats that
    :func:`bixt3d.io.read_points` reads. Files with other suffixes are ignored. With ``part_names``, or a file
    ``part_names.txt`` in ``root`` with one name per line, the files must also label their points
    (:func:`bixt3d.io.read_points`): label i refers to part name i, counted from 0 over all classes, and -1 means
    unlabelled. The classes are then those in the part names, in that order.

    *HDF5*: ``root`` is a folder of files with either ``train`` or ``test`` as a word in their names, such as
    ``mine_train0.h5``, or one ``.h5`` file with the groups ``train`` and ``test``, or one with its arrays at the top
    level (all of them are train). The arrays are ``data`` ``(n, N, 3)`` (or 6, with normals), ``label`` ``(n,)`` or
    ``(n, 1)``, and optionally ``normal`` ``(n, N, 3)``, ``pid`` ``(n, N)`` (part labels) and ``names`` (class names).
    Names can also be given in files ``shape_names.txt`` and ``part_names.txt`` beside them, one name per line.

    A third folder, group or file called ``val`` is the validation split. Without one, a share of each class of train
    is held out. Every cloud is resampled to ``stored_points`` points in random order: a subset if it has more, with
    repetitions if it has fewer. Meshes are sampled uniformly by area. The points drawn from a cloud depend only on
    ``seed`` and its name. Folders are parsed once, into a cache.

    Args:
        root: the folder or the file.
        num_points: points per cloud that the model will use.
        stored_points: points to keep of each cloud, at least ``num_points``.
        normals: also load unit normals. Every file must have them (meshes always do).
        val_fraction: share of train to hold out as val if there is no ``val`` split, in [0, 1).
        val_seed: selects which clouds are held out.
        seed: seed for drawing points.
        up: axis that points up in the files: ``"x"``, ``"y"`` or ``"z"``.
        class_names: class names in label order, for HDF5 files without names.
        part_names: part names ``"class/part"`` in label order. The parts of a class must be consecutive. Without part
            names, labels in folder trees are ignored, and the parts of HDF5 files are named by number.
        cache: folder for the parsed files. None uses a folder beside ``root``, or the user's cache folder if that is
            not writable.

    Raises:
        FileNotFoundError: ``root`` does not exist or has no train split.
        ValueError: a class has no files or no parts, another split has a class that train lacks, a number is out of
            range, the axis is unknown, or the names do not fit the data.
        RuntimeError: an HDF5 file is damaged.
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
                    "class_names: expected only with HDF5 files; in a folder tree the folders name the classes, so "
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
        """Load one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            The clouds in the order of their names, ``(n, stored_points, 3 or 6)``, with part labels if the data set
            has parts.

        Raises:
            FileNotFoundError: the split does not exist.
            ValueError: the split is unknown or empty, or a file cannot be used; the message names the file.
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
        """Return the folder of each class of the split."""
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
            _files(place)  # raises at once if a class has no clouds
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
        """Read one cloud, ``(stored_points, 3 or 6)`` float32, plus a last column of labels if there are parts."""
        seed = cloud_seed(self.seed, name)
        cloud = read_points(file, num_samples=self.stored_points, seed=seed, labels=bool(self.parts))
        cloud = cloud.turned(self.up)
        if self.normals and cloud.normals is None:
            raise ValueError(f"{file}: normals=True, but the file has no usable normals; set normals=False.")
        if (cloud.points == cloud.points[0]).all():
            raise ValueError(f"{file}: all points coincide, so the cloud has no size; remove the file.")
        index = resample_index(len(cloud), self.stored_points, np.random.default_rng(seed))
        # normalised after drawing: the mean and the largest radius are those of the points that are kept
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
        for row, drawn in enumerate(index):  # cloud by cloud, since float64 needs twice the memory
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
    """Return a seed for one cloud that does not depend on other clouds or the platform."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")


def resample_index(count: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``wanted`` of ``count`` indices in random order; none occurs twice before all have occurred once."""
    rounds = [rng.permutation(count) for _ in range(-(-wanted // count))]
    return np.concatenate(rounds)[:wanted]


def _folders(parent: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")))


def _files(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    clouds = sorted(filter(_is_cloud, found))
    if not clouds:
        raise ValueError(
            f"{folder}: none of the {len(found)} files of this class has a known format; add files of one "
            f"of {', '.join(FORMATS)}, or remove the folder."
        )
    return clouds


def _is_cloud(path: Path) -> bool:
    return path.suffix.lower() in FORMATS
