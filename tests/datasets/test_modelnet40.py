from pathlib import Path

import h5py
import numpy as np
import pytest

from bixt3d.datasets import ModelNet40
from bixt3d.datasets.modelnet40_source import check_content

SHARED = Path(__file__).parents[3] / "shared" / "data"
CLASSES = ("bed", "flower_pot", "lamp")


@pytest.fixture
def hdf5(tmp_path):
    """Number the clouds through in their first coordinate, so that the order of the files shows."""
    folder = tmp_path / "modelnet40_ply_hdf5_2048"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    number = 0
    for split, sizes in (("train", (30, 20)), ("test", (12,))):
        for i, size in enumerate(sizes):
            rng = np.random.default_rng(i)
            data = rng.uniform(-1, 1, (size, 16, 3)).astype(np.float32)
            data[:, 0, 0] = (number + np.arange(size)) / 1000
            labels = ((number + np.arange(size)) % 3).astype(np.uint8)[:, None]
            number += size
            with h5py.File(folder / f"ply_data_{split}{i}.h5", "w") as file:
                file["data"], file["label"] = data, labels
    return folder


def write_shape(folder, name, rows=12, seed=0):
    rng = np.random.default_rng((len(name), seed))
    points = rng.normal(size=(rows, 3)) + 0.5
    normals = rng.normal(size=(rows, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    path = folder / name.rsplit("_", 1)[0] / f"{name}.txt"
    path.parent.mkdir(exist_ok=True)
    np.savetxt(path, np.concatenate([points, normals], axis=1), fmt="%.6f", delimiter=",")
    return np.loadtxt(path, delimiter=",")


@pytest.fixture
def text(tmp_path):
    folder = tmp_path / "modelnet40_normal_resampled"
    folder.mkdir()
    (folder / "modelnet40_shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    train = [f"{name}_{i:04d}" for i in (2, 1) for name in CLASSES]
    test = ["lamp_0009", "bed_0009"]
    (folder / "modelnet40_train.txt").write_text("\n".join(train) + "\n")
    (folder / "modelnet40_test.txt").write_text("\r\n".join(test))
    for name in train + test:
        write_shape(folder, name)
    return folder


def test_hdf5_joins_files_in_order_and_partitions_train(hdf5):
    full = ModelNet40(hdf5, num_points=16, val_fraction=0).load("train")
    assert full.points.shape == (50, 16, 3)
    assert np.allclose(full.points[:, 0, 0], np.arange(50) / 1000)  # sorted files, rows in order
    assert np.array_equal(full.labels, np.arange(50) % 3)
    assert full.names[30] == "ply_data_train1.h5:0"
    dataset = ModelNet40(hdf5.parent, num_points=16, val_fraction=0.2)  # the parent will do
    assert dataset.classes == CLASSES
    train, val, test = (dataset.load(split) for split in ("train", "val", "test"))
    rows = np.concatenate([train.points[:, 0, 0], val.points[:, 0, 0]])
    assert np.allclose(np.sort(rows), np.arange(50) / 1000)
    assert np.bincount(val.labels).tolist() == [3, 3, 3]  # of 17, 17 and 16
    assert len(test) == 12


def test_hdf5_keeps_the_first_stored_points(hdf5):
    full = ModelNet40(hdf5, num_points=4).load("test")
    some = ModelNet40(hdf5, num_points=4, stored_points=8).load("test")
    assert np.array_equal(some.points, full.points[:, :8])


def test_hdf5_errors(hdf5, tmp_path):
    with pytest.raises(ValueError, match="normals=True"):
        ModelNet40(hdf5, normals=True)
    with pytest.raises(ValueError, match=r"16 points a cloud, but 1024"):
        ModelNet40(hdf5).load("test")
    with pytest.raises(ValueError, match="stored_points"):
        ModelNet40(hdf5, num_points=8, stored_points=4)
    with pytest.raises(ValueError, match="'val' is empty"):
        ModelNet40(hdf5, num_points=8, val_fraction=0).load("val")
    with pytest.raises(ValueError, match="'dev', expected one of test, train, val"):
        ModelNet40(hdf5, num_points=8).load("dev")
    with pytest.raises(FileNotFoundError, match=r"python scripts/prepare_data\.py modelnet40 --root"):
        ModelNet40(tmp_path / "nowhere")
    (hdf5 / "ply_data_test0.h5").write_bytes((hdf5 / "ply_data_test0.h5").read_bytes()[:600])
    with pytest.raises(RuntimeError, match=r"ply_data_test0\.h5"):
        ModelNet40(hdf5, num_points=8).load("test")
    with h5py.File(hdf5 / "ply_data_train1.h5", "a") as file:
        del file["label"]
    with pytest.raises(
        ValueError, match=r"ply_data_train1\.h5: expected data sets 'data' and 'label', got data"
    ):
        ModelNet40(hdf5, num_points=8).load("train")


def test_hdf5_label_beyond_the_names(hdf5):
    (hdf5 / "shape_names.txt").write_text("bed\nlamp\n")
    with pytest.raises(ValueError, match=r"ply_data_test0\.h5:0\) has label 2"):
        ModelNet40(hdf5, num_points=8).load("test")


def test_text_is_parsed_in_list_order_and_normalised(text):
    dataset = ModelNet40(text, num_points=8, normals=True, val_fraction=0)
    test = dataset.load("test")
    assert test.names == ("lamp_0009", "bed_0009")
    assert test.labels.tolist() == [2, 0]
    rows = np.loadtxt(text / "lamp" / "lamp_0009.txt", delimiter=",")
    centred = rows[:, :3] - rows[:, :3].mean(axis=0)
    assert np.allclose(test.points[0, :, :3], centred / np.linalg.norm(centred, axis=1).max(), atol=1e-6)
    assert np.allclose(test.points[0, :, 3:], rows[:, 3:], atol=1e-6)
    assert ModelNet40(text, num_points=8, val_fraction=0).load("test").points.shape == (2, 12, 3)
    train = dataset.load("train")
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]  # flower_pot has an underscore of its own


def test_text_cache_is_used_and_rebuilt_when_a_file_changes(text, monkeypatch):
    dataset = ModelNet40(text, num_points=8, stored_points=10)
    before = dataset.load("test").points.copy()
    cached = sorted((text.parent / f"{text.name}_cache").iterdir())
    assert len(cached) == 1
    monkeypatch.setattr("bixt3d.datasets.modelnet40.parse_shape", None)  # would fail if it were called
    assert np.array_equal(dataset.load("test").points, before)
    monkeypatch.undo()
    write_shape(text, "bed_0009", rows=13, seed=1)
    after = dataset.load("test").points
    assert np.array_equal(after[0], before[0])
    assert not np.array_equal(after[1], before[1])
    assert len(sorted(cached[0].parent.iterdir())) == 1  # the stale one is gone


def test_text_errors(text):
    (text / "bed" / "bed_0009.txt").write_text("1,2,3\n")
    with pytest.raises(RuntimeError, match=r"bed_0009\.txt: expected 6 columns, got 3"):
        ModelNet40(text, num_points=8).load("test")
    assert not list((text.parent / f"{text.name}_cache").iterdir())  # nothing half-written stays
    write_shape(text, "bed_0009", rows=5)
    with pytest.raises(RuntimeError, match=r"bed_0009\.txt: expected at least 12 points, got 5"):
        ModelNet40(text, num_points=8).load("test")
    (text / "bed" / "bed_0009.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"bed_0009\.txt: 1 of 2 shapes.*prepare_data"):
        ModelNet40(text, num_points=8).load("test")
    (text / "modelnet40_test.txt").write_text("sofa_0001\n")
    with pytest.raises(RuntimeError, match="'sofa_0001' belongs to none of the listed classes"):
        ModelNet40(text, num_points=8).load("test")


def test_text_keeps_the_first_stored_points(text):
    rows = np.loadtxt(text / "lamp" / "lamp_0009.txt", delimiter=",")[:10]
    points = ModelNet40(text, num_points=8, stored_points=10, normals=True).load("test").points
    centred = rows[:, :3] - rows[:, :3].mean(axis=0)
    assert points.shape == (2, 10, 6)
    assert np.allclose(points[0, :, :3], centred / np.linalg.norm(centred, axis=1).max(), atol=1e-6)
    assert np.allclose(points[0, :, 3:], rows[:, 3:], atol=1e-6)
    with pytest.raises(ValueError, match=r"lamp_0009\.txt: holds 12 points a cloud, but 13 were asked for"):
        ModelNet40(text, num_points=13).load("test")


def test_text_cache_lies_where_it_is_asked_for(text, tmp_path):
    for stored in (10, 12):
        for _ in range(2):
            ModelNet40(text, num_points=8, stored_points=stored, cache=tmp_path / "parsed").load("test")
    assert len(list((tmp_path / "parsed").iterdir())) == 2  # each setting has its own, and keeps it
    assert not (text.parent / f"{text.name}_cache").exists()


def test_an_empty_list_of_shapes_is_named(text):
    (text / "modelnet40_test.txt").write_text("\n")
    with pytest.raises(RuntimeError, match=r"modelnet40_test\.txt: expected one shape per line, got none"):
        ModelNet40(text, num_points=8).load("test")


def test_held_out_shapes_follow_their_seed(hdf5):
    held_out = {ModelNet40(hdf5, num_points=8, val_seed=seed).load("val").names for seed in (0, 1, 1)}
    assert len(held_out) == 2
    with pytest.raises(ValueError, match=r"val_fraction: expected a number in \[0, 1\)"):
        ModelNet40(hdf5, num_points=8, val_fraction=1.5)


def test_hdf5_wins_unless_normals_are_wanted(hdf5, text):
    assert ModelNet40(hdf5.parent, num_points=8).layout == "hdf5"
    assert ModelNet40(hdf5.parent, num_points=8, normals=True).layout == "text"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real ModelNet40 is not beside the repository")
def test_real_hdf5_counts():
    dataset = ModelNet40(SHARED / "modelnet40_hdf5_1024")
    train, val, test = (dataset.load(split) for split in ("train", "val", "test"))
    assert len(train) + len(val) == 9843
    assert len(test) == 2468
    assert len(dataset.classes) == 40
    assert abs(len(val) - 984) <= 20
    assert np.allclose(np.linalg.norm(test.points, axis=2).max(axis=1), 1, atol=1e-3)
    assert check_content(dataset.root)[1] == "train: 9843 clouds of 1024 points in 5 files"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real ModelNet40 is not beside the repository")
def test_real_text_sample(tmp_path):
    folder = SHARED / "modelnet40_normal_resampled_sample"
    dataset = ModelNet40(folder, normals=True, val_fraction=0, cache=tmp_path)
    train = dataset.load("train")
    assert train.points.shape == (9, 10_000, 6)
    assert np.allclose(np.linalg.norm(train.points[..., 3:], axis=2), 1, atol=1e-3)
    assert all(dataset.classes[label] in name for label, name in zip(train.labels, train.names, strict=True))
