"""HDF5 files of one's own as a data set: which files are which split, and what they may hold."""

import h5py
import numpy as np
import pytest

from bixt3d.datasets import Folder


def hdf5(node, count, classes=2, points=20, seed=0):
    rng = np.random.default_rng(seed)
    node["data"] = rng.normal(size=(count, points, 3)).astype(np.float32) + 5
    labels = np.arange(count) % classes
    node["label"] = labels[:, None].astype(np.uint8)
    # parts 0, 1 belong to class 0; 2, 3 to class 1; ...
    node["pid"] = (2 * labels[:, None] + (node["data"][..., 0] > 5)).astype(np.uint8)


def test_one_hdf5_file_with_groups(tmp_path):
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        hdf5(file.create_group("train"), 20)
        hdf5(file.create_group("test"), 6, seed=1)
        file["train"]["names"] = ["cow", "dog"]
    folder = Folder(tmp_path / "mine.h5", num_points=8, stored_points=16, val_fraction=0.2)
    assert folder.classes == ("cow", "dog")
    assert folder.parts == ("cow/part 0", "cow/part 1", "dog/part 0", "dog/part 1")
    train, val, test = (folder.load(split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (16, 4, 6)
    assert test.points.shape == (6, 16, 3)
    # part labels stay with their points: part is 1 exactly where x lay right of 5, a threshold in x
    for points, parts, label in zip(test.points, test.part_labels, test.labels, strict=True):
        right = parts == 2 * label + 1
        assert points[right, 0].min() > points[~right, 0].max()


def test_up_becomes_y_in_hdf5_files(tmp_path):
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        hdf5(file.create_group("train"), 4)
        file["train"]["normal"] = np.broadcast_to(np.float32([0, 0, 1]), (4, 20, 3))
    settings = {"num_points": 8, "stored_points": 16, "normals": True, "val_fraction": 0}
    lying = Folder(tmp_path / "mine.h5", **settings).load("train").points
    standing = Folder(tmp_path / "mine.h5", up="z", **settings).load("train").points
    assert np.allclose(standing[..., 1], lying[..., 2], atol=1e-6)
    assert np.allclose(standing[..., 3:], [0, 1, 0])


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_map_coordinates_in_hdf5_files_keep_their_shape(tmp_path, dtype):
    """In float32 a unit cube there keeps three distinct values of y."""
    rng = np.random.default_rng(0)
    cubes = (rng.uniform(size=(2, 1024, 3)) * 1000 + [500e6, 5000e6, 300e3]).astype(dtype)  # millimetres
    normals = np.broadcast_to(np.float32([0.6, 0.8, 0]), cubes.shape)
    for split, cube in zip(("train", "test"), cubes, strict=True):
        with h5py.File(tmp_path / f"{split}.h5", "w") as file:
            file["data"], file["normal"], file["label"] = cube[None], normals[:1], [0]
    clouds = Folder(tmp_path, num_points=8, stored_points=1024, normals=True).load("test").points[0]
    centred = cubes[1] - cubes[1].mean(axis=0)
    expected = centred / np.linalg.norm(centred, axis=1).max()
    order, wanted = (np.lexsort(points[:, :3].T.round(5)) for points in (clouds, expected))
    assert np.abs(clouds[order, :3] - expected[wanted]).max() < 1e-4
    assert np.allclose(clouds[:, 3:], [0.6, 0.8, 0])


def test_flat_hdf5_file_is_train_alone(tmp_path):
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        hdf5(file, 10)
        del file["pid"]
    folder = Folder(tmp_path / "flat.h5", num_points=8, stored_points=32)
    assert folder.classes == ("class_0", "class_1")
    assert folder.load("train").part_labels is None
    with pytest.raises(FileNotFoundError, match="no test split"):
        folder.load("test")


def test_hdf5_folder(tmp_path):
    for name, count in (("x_train0", 8), ("x_train1", 6), ("x_test", 4), ("x_val", 2)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            hdf5(file, count)
    (tmp_path / "shape_names.txt").write_text("night stand\ndog \n\n")
    folder = Folder(tmp_path, num_points=8, stored_points=16)
    assert folder.classes == ("night stand", "dog")
    assert [len(folder.load(split)) for split in ("train", "val", "test")] == [14, 2, 4]


@pytest.mark.parametrize(
    ("name", "both"),
    [
        ("trainval", "train and val"),
        ("test_train_eval", "train and test"),
        ("Training-Validation", "train and val"),
    ],
)
def test_a_file_of_two_splits_is_refused(tmp_path, name, both):
    for stem in ("train", name):
        with h5py.File(tmp_path / f"{stem}.h5", "w") as file:
            hdf5(file, 4)
    with pytest.raises(
        ValueError, match=rf"{name}\.h5: expected the word of one split in its name, got {both};"
    ):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train_latest", "train"),
        ("ply_data_train3", "train"),
        ("Training_objectdataset", "train"),
        ("my-validation2", "val"),
        ("val", "val"),
        ("test_objectdataset", "test"),
        ("latest", None),
        ("interval_attested", None),
        ("constraints", None),
    ],
)
def test_a_split_is_named_by_a_whole_word(tmp_path, name, split):
    for stem, count in (("x_train", 6), (name, 4)):
        with h5py.File(tmp_path / f"{stem}.h5", "w") as file:
            hdf5(file, count)
    folder = Folder(tmp_path, num_points=8, stored_points=16, val_fraction=0)
    assert len(folder.load("train")) == (10 if split == "train" else 6)
    for other in ("val", "test"):
        if other == split:
            assert len(folder.load(other)) == 4
        else:
            with pytest.raises((ValueError, FileNotFoundError), match=f"'val' is empty|no {other} split"):
                folder.load(other)


def test_variants_of_one_data_set_are_not_joined(tmp_path):
    names = ("training_objectdataset.h5", "training_objectdataset_augmentedrot_scale75.h5")
    for name in (*names, "test_objectdataset.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            hdf5(file, 4)
    with pytest.raises(
        ValueError, match=rf"{names[0]} and {names[1]} are variants of one data set; keep one"
    ):
        Folder(tmp_path)
    (tmp_path / names[1]).unlink()
    assert len(Folder(tmp_path, num_points=8, stored_points=16, val_fraction=0).load("train")) == 4


def test_what_a_folder_holds_is_known_without_its_points(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        hdf5(file, 6)
        points = file["data"][()]
        del file["data"]
        file.create_dataset("data", data=points, chunks=points.shape, fletcher32=True)
    content = path.read_bytes()
    assert points.tobytes() in content
    path.write_bytes(content.replace(points.tobytes(), bytes(points.nbytes)))  # the checksum is wrong now
    folder = Folder(path, num_points=8, stored_points=16)
    assert folder.parts == tuple(f"class_{i}/part {j}" for i in (0, 1) for j in (0, 1))
    with pytest.raises(RuntimeError, match=r"a\.h5: expected 6 clouds, got data that cannot be read"):
        folder.load("train")


@pytest.mark.parametrize("layout", ["data", "normal"])
def test_colours_are_no_normals(tmp_path, layout):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        hdf5(file, 4)
        xyz, up = file["data"][()], np.broadcast_to(np.float32([0, 0.6, 0.8]), (4, 20, 3))
        if layout == "normal":
            file["normal"] = up
        else:
            del file["data"]
            file["data"] = np.concatenate([xyz, up], axis=2)
    settings = {"num_points": 8, "stored_points": 16, "val_fraction": 0}
    clouds = Folder(tmp_path / "a.h5", normals=True, **settings).load("train")
    assert np.allclose(clouds.points[..., 3:], [0, 0.6, 0.8])
    if layout == "normal":
        return
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["data"][3, 7, 3:] = [0.9, 0.2, 0.1]
    assert Folder(tmp_path / "a.h5", **settings).load("train").points.shape == (4, 16, 3)
    with pytest.raises(ValueError, match=r"a\.h5: normals=True, but columns 4 to 6 .* not unit vectors"):
        Folder(tmp_path / "a.h5", normals=True, **settings).load("train")


def replace(path, key, value):
    with h5py.File(path, "w") as file:
        hdf5(file, 4)
        if key in file:
            del file[key]
        if isinstance(value, dict):
            file.create_dataset(key, **value)
        elif isinstance(value, str) and value == "group":
            file.create_group(key)
        else:
            file[key] = value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data", "group", "data: expected an array"),
        ("data", h5py.Empty("f4"), "data: expected an array"),
        ("data", h5py.SoftLink("/nowhere"), r"HDF5 \(data\)"),
        ("data", h5py.ExternalLink("absent.h5", "/data"), r"HDF5 \(data\)"),
        ("data", np.zeros((4, 20)), r"data: expected shape \(n, N, 3\)"),
        ("data", np.zeros((4, 0, 3)), r"data: expected shape \(n, N, 3\)"),
        ("data", np.zeros((4, 20, 3), complex), "data: expected real numbers"),
        (
            "data",
            {"shape": (10**6, 10**6, 3), "chunks": (1, 999, 3), "dtype": "f4"},
            "data: .* got 0 bytes; it may be truncated",
        ),
        (
            "label",
            {"shape": (10**13,), "chunks": (999,), "dtype": "i8"},
            "label: .* got 0 bytes; it may be truncated",
        ),
        ("label", "group", "label: expected an array"),
        ("label", np.arange(3), r"label: expected shape \(4,\) or \(4, 1\), got \(3,\)"),
        ("label", np.array([b"cow"] * 4), "label: expected whole numbers, got dtype"),
        ("label", np.full(4, 10**9), "label: expected numbers from 0 up to 9999, got 1000000000"),
        ("pid", np.full((4, 20), 10**9), "pid: expected numbers|pid 1000000000 occurs"),
        ("pid", np.zeros((4, 19)), r"pid: expected shape \(4, 20\), got \(4, 19\)"),
        ("names", [1, 2], "names: expected words"),
        ("names", np.array([b"\xff", b"cow"]), "names: expected words"),
        ("names", "word", r"names: expected shape \(1,\), got \(\)"),
    ],
)
def test_hdf5_files_of_other_content_say_what_is_wrong(tmp_path, key, value, words):
    replace(tmp_path / "a.h5", key, value)
    with pytest.raises((ValueError, TypeError, RuntimeError), match=rf"a\.h5.*({words})") as caught:
        Folder(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


def test_normals_of_another_shape_are_refused(tmp_path):
    replace(tmp_path / "a.h5", "normal", np.zeros((4, 19, 3)))
    with pytest.raises(ValueError, match=r"a\.h5: normal: expected shape \(4, 20, 3\), got \(4, 19, 3\)"):
        Folder(tmp_path / "a.h5", num_points=8, stored_points=16, normals=True).load("train")


def test_clouds_of_other_sizes_in_another_file_are_refused(tmp_path):
    for name, points in (("train0", 20), ("train1", 30)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            hdf5(file, 4, points=points)
    with pytest.raises(ValueError, match=r"the same number of points in every file, got \[20, 30\]"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("label", 0.7), ("label", -1), ("label", np.nan), ("pid", 1.5), ("pid", -2)]
)
def test_labels_that_are_no_numbers_of_classes_are_refused(tmp_path, key, value):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        hdf5(file, 4)
        labels = np.full_like(file[key][()], value, dtype=np.float64)
        del file[key]
        file[key] = labels
    least = -1 if key == "pid" else 0
    with pytest.raises(
        ValueError, match=rf"a\.h5: {key}: expected whole numbers from {least} up, got {value}"
    ):
        Folder(tmp_path / "a.h5")


def test_labels_stored_as_float_are_read_where_they_are_whole(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        hdf5(file, 4)
        del file["label"]
        file["label"] = np.array([0.0, 1.0, 0.0, 1.0])
    clouds = Folder(tmp_path / "a.h5", num_points=8, stored_points=16, val_fraction=0).load("train")
    assert clouds.labels.tolist() == [0, 1, 0, 1]


def test_hdf5_errors(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        hdf5(file, 4)
        file["names"] = ["only"]
    with pytest.raises(ValueError, match="expected labels from 0 to 0"):
        Folder(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        hdf5(file, 4)
        file["pid"][:] = 0
    with pytest.raises(ValueError, match="pid 0 occurs in the classes"):
        Folder(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        hdf5(file, 4)
    with pytest.raises(ValueError, match=r"c\.h5: normals=True"):
        Folder(tmp_path / "c.h5", num_points=8, stored_points=16, normals=True).load("train")
    (tmp_path / "d.h5").write_text("no")
    with pytest.raises(RuntimeError, match=r"d\.h5"):
        Folder(tmp_path / "d.h5")
