import csv
import json
import os
import stat

import numpy as np
import pytest
import trimesh

from bixt3d.io import read_points
from bixt3d.io.writing import (
    atomic_file,
    check_file,
    check_folder,
    write_csv,
    write_json,
    write_npz,
    write_ply,
    write_text,
)

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (50, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 7, 50)


@pytest.mark.parametrize("kind", ["float", "double"])
def test_ply_keeps_coordinates_and_opens_elsewhere(tmp_path, kind):
    points = RNG.normal(size=(50, 3)).astype(np.float32).astype(np.float64)
    if kind == "double":
        points += np.array([500_000.125, 4_000_000.0625, 0.001])  # map coordinates: no float32 holds them
    path = tmp_path / "new" / "a.ply"
    write_ply(path, points, COLORS, LABELS)
    assert f"property {kind} x" in path.read_bytes()[:120].decode("ascii", "replace")
    assert np.array_equal(read_points(path).points, points)
    theirs = trimesh.load(path)
    assert np.array_equal(theirs.colors[:, :3], COLORS)
    labels = theirs.metadata["_ply_raw"]["vertex"]["data"]["label"]
    assert np.array_equal(np.ravel(labels), LABELS)


def test_ply_opens_in_open3d(tmp_path):
    open3d = pytest.importorskip("open3d", reason="open3d is not installed", exc_type=(ImportError, OSError))
    points = RNG.normal(size=(50, 3)) + 1e6
    write_ply(tmp_path / "a.ply", points, COLORS, LABELS)
    theirs = open3d.io.read_point_cloud(str(tmp_path / "a.ply"))
    assert np.array_equal(np.asarray(theirs.points), points)
    assert np.array_equal((np.asarray(theirs.colors) * 255).round(), COLORS)


def test_ply_refuses_what_does_not_fit(tmp_path):
    points = np.zeros((50, 3))
    with pytest.raises(ValueError, match="points: expected shape"):
        write_ply(tmp_path / "a.ply", points[:, :2], COLORS)
    with pytest.raises(TypeError, match="colors: expected dtype uint8"):
        write_ply(tmp_path / "a.ply", points, COLORS / 255)
    with pytest.raises(ValueError, match="colors: expected shape"):
        write_ply(tmp_path / "a.ply", points, COLORS[:9])
    with pytest.raises(ValueError, match="labels: expected shape"):
        write_ply(tmp_path / "a.ply", points, COLORS, LABELS[:9])
    assert list(tmp_path.iterdir()) == []


def test_npz_is_read_back(tmp_path):
    points = RNG.normal(size=(5, 3))
    write_npz(tmp_path / "a.npz", {"points": points, "names": np.array(["a/b"])})
    assert np.array_equal(read_points(tmp_path / "a.npz").points, points)


@pytest.mark.parametrize("durable", [False, True])
def test_an_error_leaves_the_old_file(tmp_path, durable):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_halfway():
        with atomic_file(path, durable=durable) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_place_whole_and_for_everyone(tmp_path, durable):
    path = tmp_path / "new" / "a.bin"
    with atomic_file(path, durable=durable) as temporary, temporary.open("wb") as file:
        file.write(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    assert list(path.parent.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_json_and_csv_are_read_back(tmp_path):
    write_json(tmp_path / "a.json", [{"name": "é", "p": 0.5}])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [{"name": "é", "p": 0.5}]
    write_csv(tmp_path / "a.csv", [["a", "b"], [1, 'x, "y"'], ["", 2]])
    assert (tmp_path / "a.csv").read_text().splitlines() == ["a,b", '1,"x, ""y"""', ",2"]


def test_json_refuses_what_is_no_number_unless_asked(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"p": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"p": float("nan")}, allow_nan=True)
    assert json.loads((tmp_path / "a.json").read_text())["p"] != 0


def test_bytes_of_a_name_that_are_no_text_become_escapes(tmp_path):
    name = os.fsdecode(b"caf\xe9")  # as Linux hands over a Latin-1 name
    write_text(tmp_path / "a.txt", name)
    write_json(tmp_path / "a.json", [name])
    write_csv(tmp_path / "a.csv", [[name, "x"]])
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\\udce9"
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [name]
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["caf\\udce9", "x"]]


def test_where_nothing_can_be_written_is_said_before(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not a folder"):
        check_folder(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="is a folder"):
        check_file(tmp_path)
    check_file(tmp_path / "not" / "yet" / "there.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
