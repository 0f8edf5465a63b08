"""Part labels of one's own clouds, in a tree of folders."""

import numpy as np
import pytest

from bixt3d.datasets import CloudLoader, Folder
from bixt3d.io.writing import write_ply

PARTS = ("cup/body", "cup/handle", "hat/brim")
SIZES = {"num_points": 32, "stored_points": 100}


def cloud(seed, count):
    """Points of a cup in a map's coordinates: the handle is where x is large."""
    points = np.random.default_rng(seed).normal(size=(count, 3)) * [3, 1, 1] + [500_000, 4_000_000, 12]
    return points, (points[:, 0] > 500_001).astype(np.int64)


def save(path, points, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".ply":
        write_ply(path, points, np.zeros(points.shape, np.uint8), labels)
    elif path.suffix == ".npz":
        np.savez(path, points=points, labels=labels)
    else:
        np.savetxt(path, np.column_stack([points, labels]), fmt="%.17g")


@pytest.fixture
def tree(tmp_path):
    """Cups of 60 to 400 points in three formats, and a hat; 0 and 1 are the parts of a cup, 2 is that of a hat."""
    root = tmp_path / "mine"
    for split, count in (("train", 4), ("test", 2)):
        for i, suffix in enumerate((".ply", ".npz", ".txt", ".ply")[:count]):
            save(root / split / "cup" / f"{i}{suffix}", *cloud(i, (60, 100, 400, 250)[i]))
        points, labels = cloud(9, 80)
        save(root / split / "hat" / "0.npz", points, labels * 0 + 2)
    return root


def test_labels_stay_with_their_points_whatever_the_size_of_the_cloud(tree):
    folder = Folder(tree, part_names=PARTS, val_fraction=0, **SIZES)
    assert (folder.classes, folder.parts) == (("cup", "hat"), PARTS)
    for _ in range(2):  # parsed, then from the cache
        train = folder.load("train")
        assert train.points.shape == (5, 100, 3)
        assert train.part_labels.shape == (5, 100)
        assert train.part_labels.dtype == np.int64
        for points, labels in zip(train.points[:4], train.part_labels[:4], strict=True):
            assert set(labels.tolist()) == {0, 1}
            assert points[labels == 1, 0].min() > points[labels == 0, 0].max()
        assert (train.part_labels[4] == 2).all()
    share = cloud(2, 400)[1].mean()
    assert abs(train.part_labels[2].mean() - share) < 0.1
    assert [len(folder.load(split)) for split in ("train", "test")] == [5, 3]
    held_out = Folder(tree, part_names=PARTS, val_fraction=0.25, **SIZES).load("val")
    assert [set(row.tolist()) for row in held_out.part_labels] == [{0, 1}]
    for sampling in ("first", "random"):
        batch = next(CloudLoader(train, batch_size=3, num_points=32, sampling=sampling).epoch(0))
        for points, labels in zip(batch.points, batch.part_labels, strict=True):
            assert points[labels == 1, 0].min() > points[labels == 0, 0].max()


def test_points_are_those_of_the_same_folder_without_labels(tree):
    with_labels = Folder(tree, part_names=PARTS, val_fraction=0, **SIZES).load("train")
    without = Folder(tree, val_fraction=0, **SIZES).load("train")
    assert np.array_equal(with_labels.points, without.points)
    assert (without.part_labels, without.parts) == (None, ())
    assert np.array_equal(with_labels.labels, without.labels)


def test_normals_beside_labels(tree):
    for file in tree.rglob("*.*"):
        points, labels = cloud(3, 120)
        file.unlink()
        normals = np.where(labels[:, None] == 1, [1.0, 0, 0], [0, 0, 1.0])
        labels = labels if file.parent.name == "cup" else labels * 0 + 2
        write_ply(file.with_suffix(".ply"), points, np.zeros(points.shape, np.uint8), labels, normals)
    folder = Folder(tree, part_names=PARTS, normals=True, up="z", val_fraction=0, **SIZES)
    train = folder.load("train")
    assert train.points.shape[2] == 6
    handle = train.part_labels[0] == 1
    assert np.array_equal(train.points[0, handle, 3:], np.tile([1, 0, 0], (handle.sum(), 1)))
    assert np.array_equal(train.points[0, ~handle, 3:], np.tile([0, 1, 0], ((~handle).sum(), 1)))


def test_points_without_a_label_are_minus_one(tree):
    points, labels = cloud(0, 300)
    labels[points[:, 1] > 4_000_000] = -1
    save(tree / "train" / "cup" / "0.ply", points, labels)
    values = np.where(labels < 0, np.nan, labels)  # as CloudCompare says it
    save(tree / "train" / "cup" / "2.txt", points, values)
    train = Folder(tree, part_names=PARTS, val_fraction=0, **SIZES).load("train")
    for row in (0, 2):
        unknown = train.part_labels[row] == -1
        assert 20 < unknown.sum() < 80
        assert train.points[row, unknown, 1].min() > train.points[row, ~unknown, 1].max()


def test_names_in_a_file_and_classes_without_clouds(tree):
    names = ("hat/brim", "sofa/seat", "sofa/back", "cup/body", "cup/handle")
    (tree / "part_names.txt").write_text("\n".join(names) + "\n\n", encoding="utf-8")
    for file in tree.rglob("cup/*.*"):
        file.unlink()
        points, labels = cloud(1, 90)
        save(file.with_suffix(".npz"), points, labels + 3)
    for split in ("train", "test"):
        save(tree / split / "hat" / "0.npz", points, labels * 0)
    folder = Folder(tree, val_fraction=0, **SIZES)
    assert (folder.classes, folder.parts) == (("hat", "sofa", "cup"), names)
    train = folder.load("train")
    assert [folder.classes[label] for label in train.labels] == ["cup"] * (len(train) - 1) + ["hat"]
    assert set(train.part_labels[0].tolist()) == {3, 4}
    assert Folder(tree, part_names=(), **SIZES).parts == ()  # what is written counts before the file


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("body", "handle"), "part_names: expected names 'class/part', got 'body'; the classes are cup, hat"),
        (("cup/body", "cup/body", "hat/brim"), "part_names: expected each part once, got 'cup/body' again"),
        (
            ("cup/body", "hat/brim", "cup/handle"),
            "part_names: expected the parts of a class to follow each other, got 'cup/handle' after 'hat/brim'",
        ),
        (("cup/body", "cups/handle"), "part_names: the class 'hat' has clouds, but no part is named hat/"),
    ],
)
def test_names_that_do_not_fit(tree, names, words):
    with pytest.raises(ValueError, match=words):
        Folder(tree, part_names=names, **SIZES)


def test_labels_that_do_not_fit(tree):
    path = tree / "train" / "cup" / "1.npz"
    points, labels = cloud(1, 90)

    def load():
        return Folder(tree, part_names=PARTS, val_fraction=0, **SIZES).load("train")

    for wrong, words in (
        (labels + 6, r"\(train/cup/1\.npz\) has label [67], expected 0 to 2 for 3 parts, or -1 for none"),
        (labels - 2, r"\(train/cup/1\.npz\) has label -2, expected 0 to 2"),
        (
            labels * 0 + 2,
            r"\(train/cup/1\.npz\) of class 'cup' has part label 2 \(hat/brim\), .* number the parts over all classes",
        ),
        (labels * 0 - 1, r"\(train/cup/1\.npz\) has no labelled points, all are -1"),
        (labels + 0.5, r"cup/1\.npz: labels: expected whole numbers as labels, got [01]\.5"),
        (labels[1:], r"cup/1\.npz: labels: expected shape \(90,\), one for each point, got \(89,\)"),
    ):
        save(path, points, wrong)
        with pytest.raises(ValueError, match=words):
            load()
    np.savez(path, points=points)
    no_labels = (
        r"cup/1\.npz: has no labels, but there are part names; expected a whole .*, or set part_names=\[\]"
    )
    with pytest.raises(ValueError, match=no_labels):
        load()
    (tree / "part_names.txt").write_text("\n".join(PARTS))
    with pytest.raises(ValueError, match=no_labels):
        Folder(tree, val_fraction=0, **SIZES).load("train")
    assert Folder(tree, part_names=[], val_fraction=0, **SIZES).load("train").part_labels is None
    path.unlink()
    path.with_suffix(".off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    with pytest.raises(
        ValueError, match=r"cup/1\.off: has no labels, .*; it is a mesh, .* save a point cloud with labels"
    ):
        load()
