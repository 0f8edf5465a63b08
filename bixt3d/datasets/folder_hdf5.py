"""Find the splits, class names and part names of a user's own HDF5 files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bixt3d.datasets.clouds import FILLER
from bixt3d.datasets.folder_parts import LISTING, read_names
from bixt3d.datasets.hdf5 import Hdf5Clouds, read_hdf5
from bixt3d.datasets.split import SPLITS

_WORDS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
_MOST_NAMES = 10_000  # of classes or parts without names; larger labels are hardly class numbers


class Hdf5Source:
    """Find splits, class names and part names in HDF5 files.

    Args:
        root: one file (with groups ``train``, ``test`` and ``val``, or flat, all of it train), or a folder of files
            with the word of one split in their names (:func:`split_words`).
        class_names: class names in label order. None uses the names in the files, or numbers the classes.
        part_names: ``"class/part"`` in label order. None uses ``part_names.txt``, or numbers the parts.

    Raises:
        FileNotFoundError: there is no train split.
        ValueError: a file lacks an array or has the words of two splits in its name, files are variants of one data
            set, or the labels do not match the names.
        RuntimeError: a file cannot be opened as HDF5.
    """

    def __init__(
        self,
        root: Path,
        *,
        class_names: Sequence[str] | None = None,
        part_names: Sequence[str] | None = None,
    ) -> None:
        self.root = root
        self._splits = _find_splits(root)
        if "train" not in self._splits:
            raise FileNotFoundError(f"{root}: there is no train split (group 'train', or 'data' at the top).")
        paths, group = self._splits["train"]
        train = read_hdf5(paths, group=group, points=False)
        count = int(train.labels.max(initial=-1)) + 1
        self.classes = (
            tuple(class_names or ())
            or train.classes
            or read_names(root, "shape_names.txt")
            or tuple(f"class_{i}" for i in range(_checked(root, "label", count)))
        )
        if count == 0:
            raise ValueError(f"{root}: the train split has no clouds; expected at least one.")
        if count > len(self.classes):
            raise ValueError(
                f"{root}: expected labels from 0 to {len(self.classes) - 1} for {len(self.classes)} class "
                f"names, got {count - 1}; correct the labels or the names."
            )
        self.parts = _part_names(root, self.classes, train)
        if part_names is None and self.parts:
            part_names = read_names(root, LISTING) or None
        if part_names is not None:
            if len(part_names) < len(self.parts) or not self.parts:
                raise ValueError(
                    f"part_names: expected at least {len(self.parts)} names, as many as {root} has parts, got "
                    f"{len(part_names)}; name each part, or leave part_names out."
                )
            self.parts = tuple(part_names)

    def has(self, split: str) -> bool:
        """Return whether the split exists."""
        return split in self._splits

    def read(self, split: str, *, normals: bool = False) -> Hdf5Clouds:
        """Read all clouds of a split, in the order of file names and rows and in the precision of the files."""
        paths, group = self._splits[split]
        return read_hdf5(paths, group=group, normals=normals, dtype=None)


def split_words(path: Path) -> list[str]:
    """Return the splits that occur as whole words in a file name; ``latest.h5``, for example, is not a test split."""
    words = re.findall("[a-z]+", path.stem.lower().replace("trainval", "train val"))
    named = {_WORDS.get(word, word) for word in words}
    return [split for split in SPLITS if split in named]


def _find_splits(root: Path) -> dict[str, tuple[list[Path], str]]:
    if root.is_dir():
        found: dict[str, list[Path]] = {split: [] for split in SPLITS}
        for path in sorted(root.glob("*.h5")):
            matches = split_words(path)
            if len(matches) > 1:
                raise ValueError(
                    f"{path}: expected the word of one split in its name, got {' and '.join(matches)}; rename it, or "
                    "its clouds would be in each of these splits."
                )
            for split in matches:
                found[split].append(path)
        for paths in found.values():  # the variants of ScanObjectNN show the same objects
            variants = [path.name for path in paths if "objectdataset" in path.name]
            if len(variants) > 1:
                raise ValueError(
                    f"{root}: {' and '.join(variants)} are variants of one data set; keep one of them in the folder."
                )
        return {split: (paths, "") for split, paths in found.items() if paths}
    import h5py

    try:
        with h5py.File(root, "r") as file:
            keys = set(file)
    except Exception as error:  # on damaged files h5py may raise anything
        raise RuntimeError(f"{root}: expected an HDF5 file or a folder, got neither ({error}).") from error
    if "data" in keys:
        return {"train": ([root], "")}
    return {split: ([root], split) for split in SPLITS if split in keys}


def _checked(root: Path, key: str, count: int) -> int:
    if count > _MOST_NAMES:
        raise ValueError(f"{root}: {key}: expected numbers from 0 up to {_MOST_NAMES - 1}, got {count - 1}.")
    return count


def _part_names(root: Path, classes: tuple[str, ...], train: Hdf5Clouds) -> tuple[str, ...]:
    """Name the parts ``"class/part 0"`` and so on; a part belongs to the class in whose clouds it occurs."""
    if train.part_labels is None:
        return ()
    owner: dict[int, int] = {}
    for label in np.unique(train.labels):
        for part in np.unique(train.part_labels[train.labels == label]):
            if part == FILLER:
                continue
            if owner.setdefault(int(part), int(label)) != label:
                raise ValueError(
                    f"{root}: pid {part} occurs in the classes {classes[owner[int(part)]]!r} and "
                    f"{classes[label]!r}; number the parts consecutively over all classes."
                )
    if not owner:
        raise ValueError(f"{root}: pid: all points of train are unlabelled ({FILLER}); expected some parts.")
    owners, latest = [], min(owner.items())[1]
    for part in range(_checked(root, "pid", max(owner) + 1)):
        # a part that does not occur in train belongs to the class of the part before it
        latest = owner.get(part, latest)
        owners.append(latest)
    if any(owners[i] != owners[i - 1] and owners[i] in owners[:i] for i in range(1, len(owners))):
        raise ValueError(f"{root}: pid: expected the parts of each class to be consecutive numbers.")
    return tuple(f"{classes[label]}/part {i - owners.index(label)}" for i, label in enumerate(owners))
