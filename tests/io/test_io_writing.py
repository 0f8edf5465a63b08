import numpy as np
import pytest
import trimesh

from bixt3d.io import read_points
from bixt3d.io.writing import write_npz, write_ply

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
