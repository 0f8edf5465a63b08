"""The same clouds in the layouts that data sets are published in."""

import shutil

import numpy as np
import pytest

from bixt3d.datasets import Folder

SQUARE = "OFF\n4 2 0\n0 0 0\n1 0 0\n1 {height} 0\n0 {height} 0\n3 0 1 2\n3 0 2 3\n"


@pytest.fixture
def split_first(tmp_path):
    for split, classes in (("train", ("cup", "night_stand")), ("test", ("cup",))):
        for name in classes:
            folder = tmp_path / "split_first" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                (folder / f"{name}_{i:04}.off").write_text(SQUARE.format(height=i + 1))
    return tmp_path / "split_first"


def class_first(root):
    """Copy a tree of ``split/class/file`` as ``class/split/file``, with what an archive brings along."""
    other = root.parent / "class_first"
    for place in root.glob("*/*"):
        shutil.copytree(place, other / place.name / place.parent.name)
    (other / "README.txt").write_text("not a class")
    return other


def test_the_class_may_come_before_the_split(split_first):
    one, other = Folder(split_first), Folder(class_first(split_first))
    assert other.classes == one.classes == ("cup", "night_stand")
    for split in ("train", "val", "test"):
        ours, theirs = other.load(split), one.load(split)
        assert ours.labels.tolist() == theirs.labels.tolist()
        for name, of in zip(ours.names, theirs.names, strict=True):
            assert name.split("/")[0] == of.split("/")[1]
            assert name.split("/")[2] == of.split("/")[2]
        # another name draws other points, of the same square of height i + 1: its sides stay in proportion
        sides = [np.ptp(c.points, axis=1)[:, :2] for c in (ours, theirs)]
        np.testing.assert_allclose(*(s[:, 1] / s[:, 0] for s in sides), rtol=0.02)


def test_a_folder_too_high_up_is_no_class(split_first):
    with pytest.raises(FileNotFoundError, match=r"no train folder here; expected root/train/<class>/<file>"):
        Folder(split_first.parent)


def test_a_class_of_test_alone_is_named_with_its_place(split_first):
    root = class_first(split_first)
    (root / "sofa" / "test").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"sofa: class 'sofa' is not in train; .* cup, night_stand"):
        Folder(root)
