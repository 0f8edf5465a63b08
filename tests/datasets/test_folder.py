from pathlib import Path

import numpy as np
import pytest

from bixt3d.datasets import Folder
from bixt3d.datasets.folder import resample_index

SHARED = Path(__file__).parents[3] / "shared" / "data"
TRIANGLE = "OFF\n3 1 0\n500 0 0\n501 0 0\n500 1 0\n3 0 1 2\n"


def save(path, count, seed=0, offset=0.0, normals=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 3)) * 40 + offset
    if normals:
        rows = np.concatenate([rows, np.tile([0.0, 1.0, 0.0], (count, 1))], axis=1)
    np.save(path, rows)
    return rows


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "mine"
    for i in range(4):
        save(root / "train" / "cup" / f"{i}.npy", 50 + i, seed=i, offset=4e6)
        save(root / "train" / "ant" / f"{i}.npy", 9, seed=10 + i)
    (root / "train" / "ant" / "notes.md").write_text("not a cloud")
    save(root / "test" / "cup" / "a.npy", 50, seed=20)
    (root / "test" / "cup" / "b.off").write_text(TRIANGLE)
    return root


def test_reads_sorted_normalised_and_resampled(root):
    folder = Folder(root, num_points=8, stored_points=24, val_fraction=0.25)
    assert folder.classes == ("ant", "cup")
    train, val, test = (folder.load(split) for split in ("train", "val", "test"))
    assert sorted(train.names + val.names) == [f"train/{c}/{i}.npy" for c in ("ant", "cup") for i in range(4)]
    assert np.bincount(val.labels).tolist() == [1, 1]
    assert test.names == ("test/cup/a.npy", "test/cup/b.off")
    for split in (train, val, test):
        assert split.points.shape[1:] == (24, 3)
        assert np.allclose(split.points.mean(axis=1), 0, atol=1e-6)
        assert np.allclose(np.linalg.norm(split.points, axis=2).max(axis=1), 1, atol=1e-6)


def test_resampling_is_without_replacement_or_by_repetition(root):
    folder = Folder(root, num_points=8, stored_points=24, val_fraction=0)
    train = folder.load("train")
    for cloud, label in zip(train.points, train.labels, strict=True):
        distinct, counts = np.unique(cloud, axis=0, return_counts=True)
        if label == 1:  # cups have 50 points or more
            assert len(distinct) == 24
        else:  # ants have 9: each two or three times
            assert len(distinct) == 9
            assert set(counts) == {2, 3}


def test_the_shape_survives_a_large_offset(root):
    rows = np.load(root / "train" / "cup" / "0.npy")
    train = Folder(root, num_points=8, stored_points=50, val_fraction=0).load("train")
    cloud = train.points[train.names.index("train/cup/0.npy")]
    centred = rows - rows.mean(axis=0)
    expected = centred / np.linalg.norm(centred, axis=1).max()
    key = lambda points: points[np.argsort(points[:, 0])]  # noqa: E731
    assert np.allclose(key(cloud), key(expected), atol=1e-6)


def test_a_cloud_does_not_depend_on_the_others(root):
    settings = {"num_points": 8, "stored_points": 24, "val_fraction": 0.0}
    before = Folder(root, **settings).load("test").points[1].copy()
    save(root / "test" / "ant" / "new.npy", 30)
    after = Folder(root, **settings).load("test")
    assert after.names[0] == "test/ant/new.npy"
    assert np.array_equal(after.points[2], before)
    assert not np.array_equal(Folder(root, seed=1, **settings).load("test").points[2], before)


def test_normals(root):
    with pytest.raises(ValueError, match=r"0\.npy: normals=True"):
        Folder(root, num_points=8, stored_points=24, normals=True).load("train")
    for path in root.glob("*/*/*.npy"):
        save(path, 30, normals=True)
    clouds = Folder(root, num_points=8, stored_points=24, normals=True).load("test")
    assert clouds.points.shape == (2, 24, 6)
    assert np.allclose(clouds.points[0, :, 3:], [0, 1, 0])
    assert np.allclose(np.abs(clouds.points[1, :, 3:]), [0, 0, 1])  # of the triangle


def test_up_becomes_y(root):
    for path in root.glob("*/*/*.npy"):
        save(path, 30, normals=True)
    settings = {"num_points": 8, "stored_points": 24, "normals": True}
    lying = Folder(root, **settings).load("test").points
    standing = Folder(root, up="z", **settings).load("test").points
    for first in (0, 3):  # points, then normals
        x, y, z = np.moveaxis(lying[..., first : first + 3], -1, 0)
        assert np.allclose(standing[..., first : first + 3], np.stack([x, z, -y], axis=-1), atol=1e-6)
    assert np.array_equal(Folder(root, **settings).load("test").points, lying)  # each has a cache of its own
    with pytest.raises(ValueError, match="up: unknown value 'w'"):
        Folder(root, up="w", **settings)


def test_own_val_folder_is_the_val_split(root):
    save(root / "val" / "ant" / "v.npy", 20)
    folder = Folder(root, num_points=8, stored_points=16, val_fraction=0)
    assert folder.load("val").names == ("val/ant/v.npy",)
    assert len(folder.load("train")) == 8


def test_folder_errors(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Folder(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no train folder here"):
        Folder(tmp_path)
    with pytest.raises(ValueError, match="stored_points"):
        Folder(root, num_points=8, stored_points=4)
    (root / "train" / "bee").mkdir()
    with pytest.raises(ValueError, match=r"bee: none of the 0 files"):
        Folder(root)
    (root / "train" / "bee").rmdir()
    save(root / "test" / "fly" / "a.npy", 20)
    with pytest.raises(ValueError, match=r"class 'fly' is not in train.*ant, cup"):
        Folder(root)


def test_errors_name_the_file(root):
    np.save(root / "test" / "cup" / "a.npy", np.full((9, 3), np.nan))
    with pytest.raises(ValueError, match=r"cup/a\.npy: 9 of 9 points"):
        Folder(root).load("test")
    np.save(root / "test" / "cup" / "a.npy", np.ones((9, 3)))
    with pytest.raises(ValueError, match=r"cup/a\.npy: all points coincide"):
        Folder(root).load("test")


def test_all_damaged_files_are_named_at_once(root):
    damaged = [root / "train" / place for place in ("ant/1.npy", "cup/0.npy", "cup/3.npy")]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(RuntimeError, match=r"^3 of the 8 files of train cannot be used: ") as failed:
        Folder(root, num_points=8, stored_points=24, val_fraction=0.25).load("train")
    assert all(str(file) in str(failed.value) for file in damaged)


def test_no_test_folder_and_no_val(tmp_path):
    save(tmp_path / "train" / "cup" / "a.npy", 20)
    folder = Folder(tmp_path, num_points=8, stored_points=16)
    with pytest.raises(FileNotFoundError, match="no test split here"):
        folder.load("test")
    with pytest.raises(ValueError, match="no class has two clouds"):
        folder.load("val")
    (tmp_path / "other" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match="no class folder"):
        Folder(tmp_path / "other")


def test_a_stray_hdf5_file_does_not_hide_a_tree(root):
    (root / "constraints.h5").write_bytes(b"")
    assert Folder(root).classes == ("ant", "cup")


@pytest.mark.parametrize(("count", "wanted"), [(5, 5), (5, 3), (3, 8), (1, 4)])
def test_resample_index(count, wanted):
    index = resample_index(count, wanted, np.random.default_rng(0))
    assert len(index) == wanted
    uses = np.bincount(index, minlength=count)
    assert uses.max() - uses.min() <= 1
    assert len(set(index[:count].tolist())) == min(count, wanted)  # all once before any twice


@pytest.mark.skipif(not SHARED.is_dir(), reason="the cattle scans are not beside the repository")
def test_real_part_segmentation_data():
    folder = Folder(SHARED / "cattle_partseg_hdf5", num_points=1024)
    assert len(folder.parts) == 4
    assert len(folder.load("val")) == 100
    test = folder.load("test")
    assert test.points.shape == (200, 2048, 3)
    assert set(np.unique(test.part_labels)) <= {0, 1, 2, 3}
