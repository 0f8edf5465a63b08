"""Both layouts of ShapeNetPart, on files of that format written here."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bixt3d.datasets import CloudLoader, ShapeNetPart
from bixt3d.datasets.shapenetpart import NUM_PARTS, read_split

LISTS = Path(__file__).parents[3] / "shared" / "data" / "shapenetpart_splits"
FOLDERS = {name: f"{i:08d}" for i, name in enumerate(NUM_PARTS, start=2691156)}
SHAPES = {
    "train": [("Mug", "b", 40), ("Airplane", "z", 30), ("Airplane", "a", 25)],
    "val": [("Mug", "c", 20)],
    "test": [("Table", "t", 35)],
}
FIRST_PART = dict(zip(NUM_PARTS, np.cumsum([0, *NUM_PARTS.values()]), strict=False))


def write_text(root: Path) -> Path:
    lines = [f"{name}\t{folder}\n" for name, folder in FOLDERS.items()]
    (root / "synsetoffset2category.txt").write_text("".join(lines))
    (root / "train_test_split").mkdir()
    for split, shapes in SHAPES.items():
        names = [f"shape_data/{FOLDERS[category]}/{name}" for category, name, _ in shapes]
        (root / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(names))
        for category, name, count in shapes:
            (root / FOLDERS[category]).mkdir(exist_ok=True)
            np.savetxt(root / FOLDERS[category] / f"{name}.txt", rows(category, name, count), fmt="%.6f")
    return root


def rows(category: str, name: str, count: int) -> np.ndarray:
    rng = np.random.default_rng([ord(name), count])
    xyz = rng.normal(size=(count, 3)) + 5  # off centre, as no file should be but may
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    part = FIRST_PART[category] + rng.integers(NUM_PARTS[category], size=(count, 1))
    return np.hstack([xyz, normal, part])


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").mkdir()
    return write_text(tmp_path / "text")


def test_numbers_of_the_format():
    assert len(NUM_PARTS) == 16
    first = "0 4 6 8 12 16 19 22 24 28 30 36 38 41 44 47"
    assert [FIRST_PART[name] for name in sorted(NUM_PARTS)] == [int(n) for n in first.split()]
    assert sum(NUM_PARTS.values()) == 50


def test_parts_are_named_within_their_category(text):
    parts = ShapeNetPart(text).parts
    assert (len(parts), parts[0], parts[4], parts[49]) == (
        50,
        "Airplane/part 0",
        "Bag/part 0",
        "Table/part 2",
    )


def test_text_layout(text):
    clouds = ShapeNetPart(text, num_points=16, normals=True).load("train")
    assert clouds.names == ("02691156/a", "02691156/z", f"{FOLDERS['Mug']}/b")  # sorted
    assert [clouds.classes[i] for i in clouds.labels] == ["Airplane", "Airplane", "Mug"]
    assert clouds.counts.tolist() == [25, 30, 40]
    assert clouds.points.shape == (3, 40, 6)
    for i, (category, name, count) in enumerate(sorted(SHAPES["train"])):
        written = rows(category, name, count)
        xyz = written[:, :3] - written[:, :3].mean(axis=0)
        written[:, :3] = xyz / np.linalg.norm(xyz, axis=1).max()
        own = np.hstack([clouds.points[i, :count], clouds.part_labels[i, :count, None]])
        # the same rows in another order: every point with its own normal and label
        np.testing.assert_allclose(own[np.lexsort(own.T)], written[np.lexsort(written.T)], atol=1e-5)
        assert not np.allclose(own, written, atol=1e-3)
        repeated = np.arange(count, 40) - count
        np.testing.assert_array_equal(clouds.points[i, count:], clouds.points[i, repeated])
        np.testing.assert_array_equal(clouds.part_labels[i, count:], clouds.part_labels[i, repeated])


def test_small_shapes_are_filled_up_to_the_points_of_the_model(text):
    dataset = ShapeNetPart(text, num_points=64)
    clouds = dataset.load("val")
    assert clouds.points.shape == (1, 64, 3)
    batch = next(CloudLoader(clouds, batch_size=1, num_points=64).epoch(0))
    assert len(np.unique(batch.points[0].numpy(), axis=0)) == 20


def test_trainval_joins_both_lists_and_leaves_no_val(text):
    dataset = ShapeNetPart(text, num_points=16, trainval=True)
    assert len(dataset.load("train")) == 4
    assert list(dataset.load("train").names) == sorted(dataset.load("train").names)
    with pytest.raises(
        ValueError, match=r"'val' is a part of train with trainval=true; set train\.select_on"
    ):
        dataset.load("val")


def test_the_order_is_drawn_from_the_seed(text):
    first, again = (ShapeNetPart(text, num_points=16).load("test").points for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, ShapeNetPart(text, num_points=16, seed=1).load("test").points)


def test_shapes_of_one_size_have_orders_of_their_own(text):
    mugs = [text / FOLDERS["Mug"] / f"{name}.txt" for name in "bc"]
    mugs[1].write_bytes(mugs[0].read_bytes())
    clouds = ShapeNetPart(text, num_points=16, trainval=True).load("train").points[-2:, :40]
    assert not np.array_equal(*clouds)
    np.testing.assert_array_equal(*(cloud[np.lexsort(cloud.T)] for cloud in clouds))


def test_trainval_is_in_the_order_of_all_names(text):
    np.savetxt(text / FOLDERS["Airplane"] / "m.txt", rows("Airplane", "m", 20))
    names = json.dumps([f"shape_data/{FOLDERS['Airplane']}/m"])
    (text / "train_test_split" / "shuffled_val_file_list.json").write_text(names)
    loaded = ShapeNetPart(text, num_points=16, trainval=True).load("train").names
    assert [name.rpartition("/")[2] for name in loaded] == ["a", "m", "z", "b"]


def test_the_cache_lies_where_it_is_asked_for(text, tmp_path):
    ShapeNetPart(text, num_points=16, cache=tmp_path / "parsed").load("test")
    assert len(list((tmp_path / "parsed").glob("test-*.npy"))) == 1
    assert not (tmp_path / "text_cache").exists()


def test_the_cache_is_used_and_rebuilt_when_a_file_changes(text, monkeypatch):
    dataset = ShapeNetPart(text, num_points=16)
    before = dataset.load("test").points
    with monkeypatch.context() as patched:
        patched.setattr(np, "loadtxt", lambda *a, **k: pytest.fail("parsed again"))
        np.testing.assert_array_equal(dataset.load("test").points, before)
    file = text / FOLDERS["Table"] / "t.txt"
    np.savetxt(file, rows("Table", "u", 50), fmt="%.6f")
    os.utime(file, ns=(1, 1))
    assert dataset.load("test").counts.tolist() == [50]
    caches = list((text.parent / "text_cache").glob("test-*.npy"))
    assert len(caches) == 1  # the stale one is gone


def test_a_cache_that_was_cut_short_is_rebuilt(text):
    dataset = ShapeNetPart(text, num_points=16)
    before = dataset.load("train").points
    (cache,) = (text.parent / "text_cache").glob("train-*.npy")
    cache.write_bytes(cache.read_bytes()[:-100])
    np.testing.assert_array_equal(dataset.load("train").points, before)


def test_hdf5_layout(tmp_path):
    import h5py

    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        with h5py.File(tmp_path / f"ply_data_{split}0.h5", "w") as file:
            label = rng.integers(16, size=(count, 1))
            first = np.array(list(FIRST_PART.values()))[label]
            file["data"] = rng.normal(size=(count, 2048, 3)).astype(np.float32)
            file["label"] = label.astype(np.uint8)
            file["pid"] = (first + rng.integers(2, size=(count, 2048))).astype(np.uint8)
    clouds = ShapeNetPart(tmp_path).load("train")
    assert clouds.points.shape == (3, 2048, 3)
    np.testing.assert_allclose(np.linalg.norm(clouds.points, axis=-1).max(axis=1), 1, atol=1e-5)
    assert len(ShapeNetPart(tmp_path, trainval=True).load("train")) == 5
    with pytest.raises(ValueError, match=r"normals=True, but .* xyz alone"):
        ShapeNetPart(tmp_path, normals=True)


def test_hdf5_points_keep_their_parts_and_are_drawn_from_the_seed(tmp_path):
    import h5py

    # the part of a lamp's point is told by where it lies: each along an arm of its own, all in another order
    rng = np.random.default_rng(0)
    pid = np.stack([rng.permutation(np.arange(40) % 4) for _ in range(2)])
    arms = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    data = arms[pid] * rng.uniform(1, 2, (2, 40, 1)) + 7
    with h5py.File(tmp_path / "ply_data_train0.h5", "w") as file:
        file["data"], file["label"] = data.astype(np.float32), [8, 8]
        file["pid"] = FIRST_PART["Lamp"] + pid
    clouds = ShapeNetPart(tmp_path, num_points=64).load("train")
    assert clouds.points.shape == (2, 64, 3)
    assert clouds.counts.tolist() == [40, 40]
    arm = (clouds.points @ arms.T).argmax(axis=2)
    np.testing.assert_array_equal(clouds.part_labels, FIRST_PART["Lamp"] + arm)
    for cloud in clouds.points:
        assert len(np.unique(cloud[:40], axis=0)) == 40
        np.testing.assert_array_equal(cloud[40:], cloud[:24])
    same, other = (ShapeNetPart(tmp_path, num_points=64, seed=s).load("train").points for s in (0, 1))
    np.testing.assert_array_equal(same, clouds.points)
    assert not np.array_equal(other, clouds.points)
    with h5py.File(tmp_path / "ply_data_train0.h5", "a") as file:
        del file["pid"]
    with pytest.raises(RuntimeError, match=r"ply_data_train0\.h5: expected part labels 'pid', got none"):
        ShapeNetPart(tmp_path).load("train")


def test_official_counts(tmp_path):
    if not LISTS.is_dir():
        pytest.skip("the official split lists are not here")
    (tmp_path / "train_test_split").symlink_to(LISTS.resolve())
    names = {split: read_split(tmp_path, split) for split in ("train", "val", "test")}
    assert {split: len(set(n)) for split, n in names.items()} == {"train": 12137, "val": 1870, "test": 2874}
    assert len({name.split("/")[0] for name in names["train"]}) == 16
    assert len(set(names["train"]) & set(names["test"])) == 23  # as ShapeNetPart's docstring warns


def test_bad_files(text, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no ShapeNetPart here .* data/README\.md"):
        ShapeNetPart(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="split: unknown value 'dev', expected one of test, train, val"):
        ShapeNetPart(text).load("dev")
    with pytest.raises(ValueError, match="num_points: expected at least 1, got 0"):
        ShapeNetPart(text, num_points=0)
    table = text / FOLDERS["Table"] / "t.txt"
    table.write_text("1 2 3\n4 5 6\n")
    with pytest.raises(RuntimeError, match=r"t\.txt: expected rows of 7 numbers, got shape \(2, 3\)"):
        ShapeNetPart(text).load("test")
    np.savetxt(table, rows("Mug", "t", 9))  # parts of a mug in the folder of tables
    with pytest.raises(ValueError, match=r"of class 'Table' has part label 3[67]"):
        ShapeNetPart(text).load("test")
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"t\.txt: 1 of 1 shapes of the split lists are missing"):
        ShapeNetPart(text).load("test")
    listing = text / "train_test_split" / "shuffled_test_file_list.json"
    listing.write_text('["shape_data/99999999/t"]')
    with pytest.raises(RuntimeError, match="shape '99999999/t' of the split lists belongs to no category"):
        ShapeNetPart(text).load("test")
    listing.write_text("[]")
    with pytest.raises(RuntimeError, match="expected at least one shape, got none"):
        read_split(text, "test")
    listing.write_text("[")
    with pytest.raises(RuntimeError, match="expected a JSON list"):
        read_split(text, "test")
    lines = [f"{name} {folder}\n" for name, folder in FOLDERS.items()]
    (text / "synsetoffset2category.txt").write_text("".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(RuntimeError, match=r"expected the 16 categories Airplane, Bag, .* got Bag, Airplane"):
        ShapeNetPart(text)  # the number of a category is that of its line
    (text / "synsetoffset2category.txt").write_text("Mug 03797390\n")
    with pytest.raises(RuntimeError, match=r"expected the 16 categories Airplane.* got Mug"):
        ShapeNetPart(text)
