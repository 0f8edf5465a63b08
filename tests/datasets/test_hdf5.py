"""What is read from HDF5 files, and what is refused; on files written here."""

import h5py
import numpy as np
import pytest

from bixt3d.datasets.hdf5 import read_hdf5


def write(path, count=3, points=6, channels=3, **instead):
    """Write a file whose numbers all differ, and none of its parts repeats; returns what it holds."""
    held = {
        "data": np.arange(count * points * channels, dtype=np.float32).reshape(count, points, channels),
        "label": np.arange(count, dtype=np.uint8),
        "pid": np.arange(count * points).reshape(count, points),
        "normal": -np.arange(count * points * 3, dtype=np.float32).reshape(count, points, 3),
    }
    held |= instead
    held = {key: value for key, value in held.items() if value is not None}
    with h5py.File(path, "w") as file:
        for key, value in held.items():
            file[key] = value
    return held


def test_the_first_points_are_kept_with_their_parts_and_normals(tmp_path):
    held = write(tmp_path / "a.h5")
    found = read_hdf5([tmp_path / "a.h5"], max_points=4, normals=True)
    assert np.array_equal(found.points, np.concatenate([held["data"], held["normal"]], axis=2)[:, :4])
    assert np.array_equal(found.part_labels, held["pid"][:, :4])
    assert found.labels.tolist() == [0, 1, 2]


def test_normals_may_be_columns_of_the_data(tmp_path):
    data = np.arange(3 * 6 * 6, dtype=np.float32).reshape(3, 6, 6)
    data[..., 3:] /= np.linalg.norm(data[..., 3:], axis=-1, keepdims=True)
    held = write(tmp_path / "a.h5", data=data, normal=None)
    assert np.array_equal(read_hdf5([tmp_path / "a.h5"], normals=True).points, held["data"])
    assert np.array_equal(read_hdf5([tmp_path / "a.h5"]).points, held["data"][..., :3])


def test_files_are_joined_in_the_order_given(tmp_path):
    first, second = write(tmp_path / "b.h5"), write(tmp_path / "a.h5", count=2)
    found = read_hdf5([tmp_path / "b.h5", tmp_path / "a.h5"])
    assert np.array_equal(found.points, np.concatenate([first["data"], second["data"]]))
    assert np.array_equal(found.part_labels, np.concatenate([first["pid"], second["pid"]]))
    assert found.names == ("b.h5:0", "b.h5:1", "b.h5:2", "a.h5:0", "a.h5:1")


@pytest.mark.parametrize(
    ("instead", "error", "said"),
    [
        (
            {"data": np.zeros((3, 6), "f4")},
            ValueError,
            r"data: expected shape \(n, N, 3\) or .*, got \(3, 6\)",
        ),
        ({"data": np.zeros((3, 6, 4), "f4")}, ValueError, r"data: expected shape .*, got \(3, 6, 4\)"),
        ({"data": np.zeros((3, 6, 3), bool)}, TypeError, "data: expected real numbers, got dtype bool"),
        ({"data": np.zeros((3, 6, 3), "c8")}, TypeError, "data: expected real numbers, got dtype complex64"),
        ({"label": np.zeros(2, "u1")}, ValueError, r"label: expected shape \(3,\) or \(3, 1\), got \(2,\)"),
        ({"label": np.zeros((1, 3), "u1")}, ValueError, r"label: expected shape .*, got \(1, 3\)"),
        ({"label": np.array([b"a", b"b", b"c"])}, TypeError, "label: expected whole numbers, got dtype"),
        ({"pid": np.zeros((3, 5), "u1")}, ValueError, r"pid: expected shape \(3, 6\), got"),
        ({"pid": np.zeros((3, 6, 1), "u1")}, ValueError, r"pid: expected shape \(3, 6\), got"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, instead, error, said):
    write(tmp_path / "a.h5", **instead)
    with pytest.raises(error, match=rf"a\.h5: {said}"):
        read_hdf5([tmp_path / "a.h5"])


def test_files_of_one_split_have_to_agree(tmp_path):
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5", points=7)
    write(tmp_path / "c.h5", pid=None)
    with pytest.raises(ValueError, match=r"the same number of points in every file, got \[6, 7\]"):
        read_hdf5([tmp_path / "a.h5", tmp_path / "b.h5"])
    with pytest.raises(ValueError, match="expected pid in every file or in none"):
        read_hdf5([tmp_path / "a.h5", tmp_path / "c.h5"])
