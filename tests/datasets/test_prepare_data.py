import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest

from bixt3d.datasets import modelnet40_source as source

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_data.py"


@pytest.fixture
def main():
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def refused(main, monkeypatch):
    """Run the script with arguments that it refuses; returns the one line that it says."""
    monkeypatch.delenv("BIXT3D_TRACEBACK", raising=False)

    def said(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert "\n" not in ended.value.code
        return ended.value.code

    return said


@pytest.fixture
def hdf5(tmp_path):
    """Write a folder with the published counts, one point a cloud."""
    folder = tmp_path / "modelnet40_ply_hdf5_2048"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("\n".join(f"class{i}" for i in range(40)))
    for name, count in (("train0", 9000), ("train1", 840), ("test0", 2468)):
        with h5py.File(folder / f"ply_data_{name}.h5", "w") as file:
            file["data"] = np.zeros((count, 1, 3), dtype=np.float32)
            file["label"] = (np.arange(count) % 40).astype(np.uint8)[:, None]
    return folder


def test_check_accepts_the_counts_and_says_that_the_bytes_differ(main, hdf5, capsys):
    assert main(["modelnet40", "--check", "--root", str(hdf5.parent)]) == 0
    out = capsys.readouterr().out
    assert "train: 9840 clouds of 1 points in 2 files" in out
    assert "test: 2468 clouds" in out
    assert "not the published files" in out
    assert "3176385ffc31a7b6b5af22191fd920d1" in out


def test_check_refuses_wrong_counts_and_shapes_in_one_line(refused, hdf5):
    with h5py.File(hdf5 / "ply_data_test0.h5", "a") as file:
        del file["data"]
        file["data"] = np.zeros((2468, 1, 2), dtype=np.float32)
    said = refused("modelnet40", "--check", "--root", str(hdf5))
    assert said.startswith("error: ")
    assert "ply_data_test0.h5: expected data (n, N, 3)" in said
    (hdf5 / "ply_data_train1.h5").unlink()
    said = refused("modelnet40", "--check", "--root", str(hdf5))
    assert "expected 9840 or 9843 train shapes, got 9000" in said


@pytest.mark.parametrize("labels", [np.full((2468, 1), 40), np.zeros((2467, 1))])
def test_check_refuses_labels_that_do_not_fit(refused, hdf5, labels):
    with h5py.File(hdf5 / "ply_data_test0.h5", "a") as file:
        del file["label"]
        file["label"] = labels.astype(np.uint8)
    said = refused("modelnet40", "--check", "--root", str(hdf5))
    assert "ply_data_test0.h5: expected data (n, N, 3) and n labels from 0 to 39" in said
    assert f"{len(labels)} labels up to {int(labels.max())}" in said


def test_check_refuses_a_class_named_twice(refused, hdf5):
    (hdf5 / "shape_names.txt").write_text("\n".join(["class0", *(f"class{i}" for i in range(39))]))
    said = refused("modelnet40", "--check", "--root", str(hdf5))
    assert "expected a list of 40 different classes, got 39" in said


def test_check_of_the_text_layout(main, refused, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "modelnet40_normal_resampled"
    monkeypatch.setattr(source, "NUM_SHAPES", {"train": (2,), "test": (1,)})
    (folder / "class0").mkdir(parents=True)
    (folder / "modelnet40_shape_names.txt").write_text("\n".join(f"class{i}" for i in range(40)))
    (folder / "modelnet40_train.txt").write_text("class0_0001\nclass0_0002\n")
    (folder / "modelnet40_test.txt").write_text("class0_0003\n")
    for i in (1, 2, 3):
        (folder / "class0" / f"class0_000{i}.txt").write_text("0,0,0,1,0,0\n" * 10_000)
    command = ["modelnet40_normal_resampled", "--check", "--root", str(tmp_path)]
    assert main(command) == 0
    assert "train: 2 clouds of 10000 points with normals" in capsys.readouterr().out
    (folder / "class0" / "class0_0003.txt").write_text("0,0,0,1,0,0\n" * 99)
    assert "class0_0003.txt: expected 10000 rows, got 99" in refused(*command)
    (folder / "class0" / "class0_0002.txt").write_text("0,0,0,1,0,0\n" * 98)  # the smallest is looked at
    assert "class0_0002.txt: expected 10000 rows, got 98" in refused(*command)
    (folder / "class0" / "class0_0002.txt").unlink()
    assert "class0_0002.txt: 1 of 2 shapes are missing" in refused(*command)
    (folder / "modelnet40_train.txt").write_text("class0_0001\n")
    assert "expected 2 train shapes, got 1" in refused(*command)


def test_nothing_there(refused, tmp_path):
    said = refused("modelnet40", "--check", "--root", str(tmp_path))
    assert f"fetch it: python scripts/prepare_data.py modelnet40 --root {tmp_path}" in said


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("modelnet40", "modelnet40_ply_hdf5_2048"),
        ("modelnet40_normal_resampled", "modelnet40_normal_resampled"),
    ],
)
def test_the_command_that_is_advised_fetches_to_where_the_folder_was_missed(refused, tmp_path, name, folder):
    said = refused(name, "--check", "--root", str(tmp_path / folder))
    assert said.strip().endswith(f"fetch it: python scripts/prepare_data.py {name} --root {tmp_path}")


def test_fetch_says_what_and_where_first(refused, tmp_path, capsys, monkeypatch):
    asked = []

    def refuse(mirror, folder, **options):
        asked.append(mirror.url)
        raise RuntimeError("no network here")

    monkeypatch.setattr("bixt3d.datasets.files.download", refuse)
    said = refused("modelnet40", "--root", str(tmp_path))
    out = capsys.readouterr().out
    assert f"into {tmp_path / 'modelnet40_ply_hdf5_2048'}" in out
    assert asked == [mirror.url for mirror in source.MODELNET40.mirrors]
    assert all(url in out for url in asked)
    assert said.count("no network here") == len(asked)


def test_every_declared_file_of_the_layout_has_a_checksum():
    names = [f"ply_data_train{i}.h5" for i in range(5)] + [f"ply_data_test{i}.h5" for i in range(2)]
    assert sorted(source.MODELNET40.members) == sorted(names)
    for checksum in source.MODELNET40.members.values():
        algorithm, digest = checksum.split(":")
        assert algorithm == "md5"
        assert len(bytes.fromhex(digest)) == 16
