"""Addresses from which to fetch ModelNet40, and checks that a folder holds all of it."""

from __future__ import annotations

from pathlib import Path

from bixt3d.datasets.files import Mirror, RemoteArchive, check_file
from bixt3d.datasets.modelnet40 import HDF5_FOLDER, TEXT_FOLDER, read_class_names, read_rows, text_shapes

# Mirrors come first: the original host has been unreachable for long periods, and its certificate has expired. The
# checksums are those in public loaders of these files, or None if none is published.
MODELNET40 = RemoteArchive(
    folder=HDF5_FOLDER,
    size="435 MB",
    mirrors=(
        Mirror(
            "https://github.com/ma-xu/pointMLP-pytorch/releases/download/Modenet40_dataset/"
            "modelnet40_ply_hdf5_2048.zip"
        ),
        Mirror("https://huggingface.co/datasets/Msun/modelnet40/resolve/main/modelnet40_ply_hdf5_2048.zip"),
        Mirror(
            "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
            "md5:c9ab8e6dfb16f67afdab25e155c79e59",
        ),
    ),
    members={
        "ply_data_train0.h5": "md5:3176385ffc31a7b6b5af22191fd920d1",
        "ply_data_train1.h5": "md5:e3f613fb500559403b34925112754dc4",
        "ply_data_train2.h5": "md5:0c56e233a090ff87c3049d4ce08e7d8b",
        "ply_data_train3.h5": "md5:9d2af465adfa33a3285c369f3ca66c45",
        "ply_data_train4.h5": "md5:dff38de489b2c41bfaeded86c2208984",
        "ply_data_test0.h5": "md5:e9732e6d83b09e79e9a7617df058adee",
        "ply_data_test1.h5": "md5:aba4b12a67c34391cc3c015a6f08ed4b",
    },
)

MODELNET40_NORMALS = RemoteArchive(
    folder=TEXT_FOLDER,
    size="1.6 GB",
    mirrors=(
        Mirror(
            "https://huggingface.co/datasets/Pointcept/modelnet40_normal_resampled-compressed/resolve/main/"
            "modelnet40_normal_resampled.tar.gz",
            "md5:46ed374f8ef5f7504ec4870298772ac2",
        ),
        Mirror("https://shapenet.cs.stanford.edu/media/modelnet40_normal_resampled.zip"),
    ),
)

# The published HDF5 files lack three of the 9,843 train shapes.
NUM_SHAPES = {"train": (9840, 9843), "test": (2468,)}


def check_content(folder: Path) -> list[str]:
    """Check the number and the shapes of the clouds in either layout, regardless of checksums.

    Returns:
        Lines to print that describe what was found.

    Raises:
        FileNotFoundError: a file is missing.
        RuntimeError: a count or a shape is wrong, or a file cannot be read.
    """
    classes = read_class_names(folder)
    if len(classes) != 40 or len(set(classes)) != 40:
        raise RuntimeError(f"{folder}: expected a list of 40 different classes, got {len(set(classes))}.")
    check = _check_text if (folder / "modelnet40_train.txt").is_file() else _check_hdf5
    return ["40 classes"] + [check(folder, split) for split in NUM_SHAPES]


def check_members(archive: RemoteArchive, folder: Path) -> None:
    """Raise RuntimeError if a published checksum does not match, FileNotFoundError if a file is missing."""
    for name, checksum in archive.members.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: the file is missing.")
        check_file(folder / name, checksum)


def _check_hdf5(folder: Path, split: str) -> str:
    import h5py

    paths = sorted(folder.glob(f"ply_data_{split}*.h5"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no ply_data_{split}*.h5.")
    count, sizes = 0, set()
    for path in paths:
        try:
            with h5py.File(path, "r") as file:
                points, labels = file["data"].shape, file["label"][()].reshape(-1)
        except (OSError, KeyError) as error:
            raise RuntimeError(f"{path}: expected HDF5 with data and label, got: {error}.") from error
        if len(points) != 3 or points[2] != 3 or len(labels) != points[0] or labels.max(initial=0) > 39:
            raise RuntimeError(
                f"{path}: expected data (n, N, 3) and n labels from 0 to 39, got data {points} and "
                f"{len(labels)} labels up to {labels.max(initial=0)}."
            )
        count += points[0]
        sizes.add(points[1])
    _check_count(folder, split, count)
    return f"{split}: {count} clouds of {'/'.join(map(str, sorted(sizes)))} points in {len(paths)} files"


def _check_text(folder: Path, split: str) -> str:
    _, _, files = text_shapes(folder, split)
    _check_count(folder, split, len(files))
    # reading every file takes minutes, so only the smallest is read
    smallest = min(files, key=lambda path: path.stat().st_size)
    rows = len(read_rows(smallest))
    if rows != 10_000:
        raise RuntimeError(f"{smallest}: expected 10000 rows, got {rows}; fetch it again.")
    return f"{split}: {len(files)} clouds of {rows} points with normals"


def _check_count(folder: Path, split: str, count: int) -> None:
    if count not in NUM_SHAPES[split]:
        expected = " or ".join(map(str, NUM_SHAPES[split]))
        raise RuntimeError(f"{folder}: expected {expected} {split} shapes, got {count}.")
