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


def test_hidden_and_other_files_are_no_clouds_and_suffixes_may_be_capital(split_first):
    stand = split_first / "train" / "night_stand"
    for name in ("._night_stand_0000.off", ".DS_Store", "notes.md"):
        (stand / name).write_text(SQUARE.format(height=1))
    (split_first / "train" / ".cache").mkdir()
    for name in ("h", "e", "b", "g", "a", "f", "d", "c"):  # not in the order of their names
        (stand / f"x_{name}.OFF").write_text(SQUARE.format(height=1))
    folder = Folder(split_first, num_points=8, stored_points=16, val_fraction=0)
    assert folder.classes == ("cup", "night_stand")
    names = [name.rpartition("/")[2] for name in folder.load("train").names[4:]]
    assert names == [*(f"night_stand_{i:04}.off" for i in range(4)), *(f"x_{c}.OFF" for c in "abcdefgh")]


def test_a_class_of_val_alone_is_refused(split_first):
    (split_first / "val" / "sofa").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"val: class 'sofa' is not in train; .* cup, night_stand"):
        Folder(split_first)


def test_class_names_are_for_hdf5_files(split_first):
    with pytest.raises(ValueError, match=r"class_names: .* folders name the classes, so leave it out"):
        Folder(split_first, class_names=["a", "b"])


def test_a_mesh_is_sampled_anew_for_each_name_and_seed(split_first):
    for i in range(4):
        (split_first / "train" / "cup" / f"cup_{i:04}.off").write_text(SQUARE.format(height=1))

    def clouds(**options):
        loaded = Folder(split_first, num_points=8, stored_points=16, val_fraction=0, **options).load("train")
        return [frozenset(map(tuple, cloud.round(5).tolist())) for cloud in loaded.points[:4]]

    assert clouds() == clouds()
    sets = [*clouds(), *clouds(seed=1)]
    assert all(not a & b for i, a in enumerate(sets) for b in sets[:i])


def test_the_held_out_clouds_follow_their_seed_and_the_cache_lies_where_it_is_asked_for(
    split_first, tmp_path
):
    settings = {"num_points": 8, "stored_points": 16, "val_fraction": 0.5, "cache": tmp_path / "parsed"}
    held_out = {Folder(split_first, val_seed=seed, **settings).load("val").names for seed in range(6)}
    assert len(held_out) > 1
    assert list((tmp_path / "parsed").glob("train-*.npy"))
    assert not (tmp_path / "split_first_cache").exists()
    with pytest.raises(ValueError, match="val_fraction: expected"):
        Folder(split_first, **{**settings, "val_fraction": 1.0})
