"""HDF5 files of one's own: which names they get, how their points are drawn, and what is refused."""

import h5py
import numpy as np
import pytest

from bixt3d.datasets import Folder

SIZES = {"num_points": 4, "stored_points": 8}


def write(path, labels=(0, 1, 0, 1), pid=None, names=None, group=None, first=0):
    """Write a file; the points of its cloud ``i`` lie along a line, with numbers from 0 to 19 in order."""
    data = np.zeros((len(labels), 20, 3), dtype=np.float32)
    data[..., 0] = np.arange(20)
    data[..., 1] = (first + np.arange(len(labels)))[:, None]
    with h5py.File(path, "a") as file:
        node = file.create_group(group) if group else file
        node["data"], node["label"] = data, np.array(labels, dtype=np.int64)
        if pid is not None:
            node["pid"] = np.repeat(np.array(pid)[:, None], 20, axis=1)
        if names is not None:
            node["names"] = list(names)


def order(clouds):
    """Return the numbers of the points of each cloud, in the order that was drawn."""
    x = clouds.points[..., 0].astype(np.float64)
    return [np.argsort(np.argsort(row)).tolist() for row in x]


def test_names_that_are_given_come_first_then_those_inside_then_those_beside(tmp_path):
    (tmp_path / "shape_names.txt").write_text("beside a\nbeside b\n")
    write(tmp_path / "with.h5", names=["in a", "in b"])
    write(tmp_path / "without.h5")
    assert Folder(tmp_path / "with.h5", class_names=["my a", "my b"]).classes == ("my a", "my b")
    assert Folder(tmp_path / "with.h5").classes == ("in a", "in b")
    assert Folder(tmp_path / "without.h5").classes == ("beside a", "beside b")


def test_parts_are_numbered_within_their_class_or_named(tmp_path):
    # class 0 has the parts 0 to 2, of which train never shows part 1; class 1 has part 3
    write(tmp_path / "a.h5", labels=(0, 1, 0), pid=(0, 3, 2))
    folder = Folder(tmp_path / "a.h5", val_fraction=0, **SIZES)
    assert folder.parts == ("class_0/part 0", "class_0/part 1", "class_0/part 2", "class_1/part 0")
    named = ("class_0/leg", "class_0/arm", "class_0/seat", "class_1/lid")
    clouds = Folder(tmp_path / "a.h5", part_names=list(named), val_fraction=0, **SIZES).load("train")
    assert clouds.parts == named
    assert clouds.part_labels[:, 0].tolist() == [0, 3, 2]


def test_a_part_that_train_never_shows_goes_with_the_one_before_it(tmp_path):
    write(tmp_path / "a.h5", labels=(0, 1, 1), pid=(0, 1, 3))
    assert Folder(tmp_path / "a.h5").parts == (
        "class_0/part 0",
        "class_1/part 0",
        "class_1/part 1",
        "class_1/part 2",
    )


def test_points_without_a_part_are_minus_one(tmp_path):
    write(tmp_path / "a.h5", labels=(0, 1, 0), pid=(0, 2, 1))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["pid"][:, :7] = -1
    (tmp_path / "part_names.txt").write_text("class_0/leg\nclass_0/seat\nclass_1/lid\n")
    folder = Folder(tmp_path / "a.h5", num_points=4, stored_points=20, val_fraction=0)
    assert folder.parts == ("class_0/leg", "class_0/seat", "class_1/lid")
    clouds = folder.load("train")
    for row, numbers, part in zip(clouds.part_labels, order(clouds), (0, 2, 1), strict=True):
        assert row.tolist() == [-1 if number < 7 else part for number in numbers]
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["pid"][()] = -1
    with pytest.raises(ValueError, match=r"a\.h5: pid: all points of train are unlabelled \(-1\)"):
        Folder(tmp_path / "a.h5")


def test_parts_that_are_named_or_numbered_wrongly(tmp_path):
    write(tmp_path / "a.h5", labels=(0, 1, 0), pid=(0, 1, 2))
    with pytest.raises(ValueError, match="pid: expected the parts of each class to be consecutive numbers"):
        Folder(tmp_path / "a.h5")
    write(tmp_path / "b.h5", labels=(0, 1, 0), pid=(0, 2, 1))
    with pytest.raises(ValueError, match=r"part_names: expected at least 3 names, as many as .* got 2"):
        Folder(tmp_path / "b.h5", part_names=["class_0/a", "class_0/b"])
    write(tmp_path / "c.h5")
    with pytest.raises(ValueError, match=r"part_names: expected at least 0 names, .*leave part_names out"):
        Folder(tmp_path / "c.h5", part_names=["class_0/a"])


def test_files_without_clouds_are_refused(tmp_path):
    write(tmp_path / "a.h5", labels=())
    with pytest.raises(ValueError, match=r"a\.h5: the train split has no clouds; expected at least one"):
        Folder(tmp_path / "a.h5")


def test_files_of_a_split_come_in_the_order_of_their_names(tmp_path):
    for name in ("train_2", "train_0", "train_1"):
        write(tmp_path / f"{name}.h5")
    clouds = Folder(tmp_path, val_fraction=0, **SIZES).load("train")
    assert clouds.names == tuple(f"train_{file}.h5:{row}" for file in range(3) for row in range(4))


def test_the_draw_of_points_follows_seed_split_and_name(tmp_path):
    for group in ("train", "test"):
        write(tmp_path / "a.h5", group=group)

    def drawn(split, **options):
        return order(
            Folder(tmp_path / "a.h5", val_fraction=0, **{**SIZES, "stored_points": 20}, **options).load(split)
        )

    first = drawn("test")
    assert drawn("test") == first
    assert drawn("test", seed=1) != first
    assert drawn("train") != first
    assert len(set(map(tuple, first))) == 4, "each cloud has an order of its own"
    assert all(sorted(one) == list(range(20)) for one in first)
