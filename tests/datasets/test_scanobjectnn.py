import h5py
import numpy as np
import pytest

from bixt3d.datasets import ScanObjectNN


@pytest.fixture
def root(tmp_path):
    for folder, name, sizes in (
        ("main_split", "objectdataset_augmentedrot_scale75", (40, 12)),
        ("main_split_nobg", "objectdataset", (20, 6)),
    ):
        (tmp_path / folder).mkdir()
        for split, size in zip(("training", "test"), sizes, strict=True):
            data = np.random.default_rng(size).uniform(-1, 1, (size, 32, 3)).astype(np.float32) + 5
            with h5py.File(tmp_path / folder / f"{split}_{name}.h5", "w") as file:
                file["data"] = data
                file["label"] = (np.arange(size) % 15).astype(np.uint8)
                file["mask"] = np.zeros((size, 32), dtype=np.int32)
    return tmp_path


def test_clouds_are_centred_whole_and_keep_their_order(root):
    test = ScanObjectNN(root, num_points=8, stored_points=16).load("test")
    assert test.points.shape == (12, 16, 3)
    with h5py.File(root / "main_split" / "test_objectdataset_augmentedrot_scale75.h5") as file:
        stored, labels = file["data"][()].astype(np.float64), file["label"][()]
    centred = stored - stored.mean(axis=1, keepdims=True)
    radius = np.linalg.norm(centred, axis=2).max(axis=1)[:, None, None]
    np.testing.assert_allclose(test.points, (centred / radius)[:, :16], atol=1e-6)
    assert np.array_equal(test.labels, labels)
    assert [test.classes[label] for label in (0, 9, 10, 14)] == ["bag", "table", "bed", "toilet"]


def test_train_and_val_are_the_official_train_split(root):
    parts = [ScanObjectNN(root, num_points=8, val_fraction=0.2).load(split) for split in ("train", "val")]
    full = ScanObjectNN(root, num_points=8, val_fraction=0).load("train")
    assert len(parts[1]) == 15  # one of each class, of two or three
    joined = np.concatenate([part.points for part in parts])
    assert {cloud.tobytes() for cloud in joined} == {cloud.tobytes() for cloud in full.points}
    assert len(joined) == 40


def test_variants_are_files_and_the_parent_will_do(root, tmp_path_factory):
    assert len(ScanObjectNN(root, variant="obj_only", num_points=8).load("test")) == 6
    above = tmp_path_factory.mktemp("above")
    (above / "h5_files").symlink_to(root, target_is_directory=True)
    assert len(ScanObjectNN(above, num_points=8).load("test")) == 12


# Folder and end of the file name of each variant, as the authors' files are called.
FILES = {
    "obj_only": ("main_split_nobg", "objectdataset"),
    "obj_bg": ("main_split", "objectdataset"),
    "pb_t25": ("main_split", "objectdataset_augmented25_norot"),
    "pb_t25_r": ("main_split", "objectdataset_augmented25rot"),
    "pb_t50_r": ("main_split", "objectdataset_augmentedrot"),
    "pb_t50_rs": ("main_split", "objectdataset_augmentedrot_scale75"),
}


def test_each_variant_is_read_from_its_own_file(tmp_path):
    for size, (folder, name) in enumerate(FILES.values(), start=3):
        (tmp_path / folder).mkdir(exist_ok=True)
        for split, count in (("training", 20 * size), ("test", size)):
            with h5py.File(tmp_path / folder / f"{split}_{name}.h5", "w") as file:
                file["data"] = np.random.default_rng(size).normal(size=(count, 8, 3)).astype(np.float32)
                file["label"] = np.arange(count) % 15
    for size, variant in enumerate(FILES, start=3):
        dataset = ScanObjectNN(tmp_path, variant=variant, num_points=8, val_fraction=0)
        assert (len(dataset.load("test")), len(dataset.load("train"))) == (size, 20 * size), variant


def test_the_classes_are_those_of_the_authors_in_their_order():
    names = "bag bin box cabinet chair desk display door shelf table bed pillow sink sofa toilet"
    assert ScanObjectNN.classes == tuple(names.split())


def test_held_out_clouds_follow_their_seed(root):
    held_out = {ScanObjectNN(root, num_points=8, val_seed=seed).load("val").names for seed in (0, 1, 1)}
    assert len(held_out) == 2


def test_errors_say_what_to_do(root):
    with pytest.raises(FileNotFoundError, match=r"augmentedrot\.h5: no such file; .*data\.root"):
        ScanObjectNN(root, variant="pb_t50_r")
    with pytest.raises(ValueError, match=r"variant: unknown value 'hardest', expected one of obj_bg, "):
        ScanObjectNN(root, variant="hardest")
    with pytest.raises(ValueError, match=r"holds 32 points a cloud, but 1024 were asked for; lower"):
        ScanObjectNN(root).load("train")
    with pytest.raises(ValueError, match="split: unknown value 'dev', expected one of test, train, val"):
        ScanObjectNN(root, num_points=8).load("dev")
    with pytest.raises(ValueError, match="'val' is empty with val_fraction=0"):
        ScanObjectNN(root, num_points=8, val_fraction=0).load("val")
    with pytest.raises(ValueError, match=r"stored_points: expected at least num_points \(8\), got 4"):
        ScanObjectNN(root, num_points=8, stored_points=4)
    with pytest.raises(ValueError, match="val_fraction"):
        ScanObjectNN(root, num_points=8, val_fraction=1)
    (root / "main_split_nobg" / "test_objectdataset.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_objectdataset\.h5: no such file"):
        ScanObjectNN(root, variant="obj_only", num_points=8).load("test")
