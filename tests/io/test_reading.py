import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from bixt3d.io import FORMATS, Cloud, read_points, turn_to_y, unit_sphere

POINTS = np.array([[500000.125, 4000000.5, 1.0], [500001.0, 4000001.25, 2.0], [500002.0, 4000000.0, 3.5]])
NORMALS = np.array([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0]])


def write(path, text):
    path.write_text(text)
    return path


def ply(points, normals=None, count=None, binary=False):
    names = ["x", "y", "z"] + (["nx", "ny", "nz"] if normals is not None else [])
    rows = points if normals is None else np.concatenate([points, normals], axis=1)
    header = ["ply", f"format {'binary_little_endian' if binary else 'ascii'} 1.0"]
    header += [f"element vertex {count or len(rows)}", *(f"property double {n}" for n in names), "end_header"]
    head = ("\n".join(header) + "\n").encode()
    if binary:
        return head + rows.astype("<f8").tobytes()
    return head + "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in rows).encode()


def pcd(points, encoding):
    head = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z normal_x normal_y normal_z\nSIZE 8 8 8 8 8 8\n"
        f"TYPE F F F F F F\nCOUNT 1 1 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {len(points)}\nDATA {encoding}\n"
    ).encode()
    rows = np.concatenate([points, NORMALS], axis=1)
    if encoding == "ascii":
        return head + "\n".join(" ".join(repr(float(v)) for v in row) for row in rows).encode() + b"\n"
    if encoding == "binary":
        return head + rows.astype("<f8").tobytes()
    raw = rows.T.astype("<f8").tobytes()  # field by field
    # LZF literals: a byte with the run length minus one, then up to 32 bytes as they are
    packed = b"".join(bytes([len(raw[i : i + 32]) - 1]) + raw[i : i + 32] for i in range(0, len(raw), 32))
    return head + struct.pack("<II", len(packed), len(raw)) + packed


@pytest.mark.parametrize(
    "text",
    [
        "500000.125 4000000.5 1\n500001 4000001.25 2\n500002 4000000 3.5\n",
        "x,y,z\n500000.125,4000000.5,1\n500001,4000001.25,2\n500002,4000000,3.5\n",
        "# made by hand\n\n500000.125;4000000.5;1\n500001;4000001.25;2\n500002;4000000;3.5",
        "//X\tY\tZ\r\n500000.125\t4000000.5\t1\r\n500001\t4000001.25\t2\r\n500002\t4000000\t3.5\r\n",
        "\ufeff500000.125, 4000000.5, 1\n500001, 4000001.25, 2\n500002, 4000000, 3.5\n",
        "3\n500000.125 4000000.5 1\n500001 4000001.25 2\n500002 4000000 3.5\n",
    ],
)
def test_text_dialects_keep_every_digit_of_large_offsets(tmp_path, text):
    cloud = read_points(write(tmp_path / "a.pts", text))
    assert cloud.points.dtype == np.float64
    assert np.array_equal(cloud.points, POINTS)
    assert cloud.normals is None
    assert not cloud.from_mesh


def test_columns_four_to_six_are_normals_only_if_unit(tmp_path):
    rows = np.concatenate([POINTS, NORMALS], axis=1)
    np.savetxt(tmp_path / "n.xyz", rows)
    assert np.allclose(read_points(tmp_path / "n.xyz").normals, NORMALS)
    more = np.concatenate([rows, [[0, 1, 0], [0, 0, 1], [1, 0, 0]]], axis=1)
    np.savetxt(tmp_path / "m.xyz", more)
    assert np.allclose(read_points(tmp_path / "m.xyz").normals, NORMALS)
    rows[:, 3:] = [[255, 0, 0], [12, 200, 3], [1, 0, 0]]  # colours
    np.savetxt(tmp_path / "c.xyz", rows)
    assert read_points(tmp_path / "c.xyz").normals is None


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("normals", [None, NORMALS])
def test_ply_points_and_normals(tmp_path, binary, normals):
    (tmp_path / "a.ply").write_bytes(ply(POINTS, normals, binary=binary))
    cloud = read_points(tmp_path / "a.ply")
    assert np.array_equal(cloud.points, POINTS)
    assert (cloud.normals is None) == (normals is None)
    if normals is not None:
        assert np.allclose(cloud.normals, NORMALS)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd(tmp_path, encoding):
    (tmp_path / "a.pcd").write_bytes(pcd(POINTS, encoding))
    cloud = read_points(tmp_path / "a.pcd")
    assert np.array_equal(cloud.points, POINTS)
    assert np.allclose(cloud.normals, NORMALS)


def test_numpy_files(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    np.savez(tmp_path / "b.npz", points=POINTS, normals=2 * NORMALS)
    assert np.array_equal(read_points(tmp_path / "a.npy").points, POINTS)
    assert np.allclose(read_points(tmp_path / "b.npz").normals, NORMALS)


# an L of two triangles in the plane z = 0, areas 1/2 and 3/2
MESHES = {
    "m.off": "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n-3 0 0\n3 0 1 2\n3 0 2 3\n",
    "stuck.off": "OFF4 2 0\n0 0 0\n1 0 0\n0 1 0\n-3 0 0\n3 0 1 2\n3 0 2 3\n",
    "m.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nv -3 0 0\nusemtl a\nf 1 2 3\nusemtl b\nf 1 3 4\n",
    "m.stl": "solid x\n"
    + "".join(
        f"facet normal 0 0 1\nouter loop\nvertex {a}\nvertex {b}\nvertex {c}\nendloop\nendfacet\n"
        for a, b, c in [("0 0 0", "1 0 0", "0 1 0"), ("0 0 0", "0 1 0", "-3 0 0")]
    )
    + "endsolid x\n",
    "m.ply": "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
    "0 0 0\n1 0 0\n0 1 0\n-3 0 0\n3 0 1 2\n3 0 2 3\n",
}


@pytest.mark.parametrize("name", sorted(MESHES))
def test_meshes_are_sampled_by_area_from_a_seed(tmp_path, name):
    path = write(tmp_path / name, MESHES[name])
    cloud = read_points(path, num_samples=4000, seed=3)
    assert cloud.from_mesh
    assert np.array_equal(cloud.points, read_points(path, num_samples=4000, seed=3).points)
    assert not np.array_equal(cloud.points, read_points(path, num_samples=4000, seed=4).points)
    x, y, z = cloud.points.T
    assert np.all(z == 0)
    assert np.all((y >= 0) & (np.where(x > 0, x, -x / 3) + y <= 1 + 1e-12))
    # a quarter of the area lies right of x = 0; 4 standard deviations of a binomial
    assert abs((x > 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    # uniform in a triangle: the mean is the centroid
    assert np.allclose(cloud.points[x > 0].mean(axis=0), [1 / 3, 1 / 3, 0], atol=0.04)
    assert np.allclose(np.abs(cloud.normals), [0, 0, 1])


def test_quads_become_triangles_and_loose_points_stay(tmp_path):
    quad = write(tmp_path / "q.obj", "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n")
    points = read_points(quad, num_samples=2000).points
    assert np.allclose(points.mean(axis=0), [0.5, 0.5, 0], atol=0.04)
    loose = read_points(write(tmp_path / "p.obj", "v 0 0 0\nv 1 0 0\nv 1 1 0\n"))
    assert np.array_equal(loose.points, [[0, 0, 0], [1, 0, 0], [1, 1, 0]])


def test_a_face_looks_where_its_corners_run_counterclockwise(tmp_path):
    up, down = (
        write(tmp_path / f"{f}.off", f"OFF\n3 1 0\n0 0 0\n2 0 0\n0 2 0\n3 {f}\n") for f in ("0 1 2", "0 2 1")
    )
    assert np.allclose(read_points(up, num_samples=5).normals, [0, 0, 1])
    assert np.allclose(read_points(down, num_samples=5).normals, [0, 0, -1])
    assert len(read_points(up)) == 10_000


def test_unit_sphere_survives_a_large_offset():
    rng = np.random.default_rng(0)
    local = rng.normal(size=(500, 3))
    far = unit_sphere(local + np.array([500_000.0, 4_000_000.0, 100.0]))
    assert far.dtype == np.float32
    assert np.abs(far - unit_sphere(local)).max() < 1e-6
    assert np.linalg.norm(far, axis=1).max() == pytest.approx(1, abs=1e-6)
    assert np.abs(far.mean(axis=0)).max() < 1e-6
    assert np.array_equal(unit_sphere(np.full((4, 3), 7.0)), np.zeros((4, 3)))


@pytest.mark.parametrize("factor", [1e-300, 1e-200, 1e-30, 1e30, 1e200, 1e300])
def test_any_unit_of_float64_gives_the_same_cloud(tmp_path, factor):
    clouds = np.random.default_rng(0).normal(size=(2, 100, 3)) + 3
    with np.errstate(all="raise", under="ignore"):
        assert np.allclose(unit_sphere(clouds * factor), unit_sphere(clouds), atol=1e-6)
        below = clouds - clouds.max()  # whose largest coordinate is 0
        assert np.allclose(unit_sphere(below * factor), unit_sphere(below), atol=1e-6)
        mixed = unit_sphere(clouds * np.array([1, factor])[:, None, None])  # each cloud for itself
    assert np.allclose(mixed, unit_sphere(clouds), atol=1e-6)
    corners = "".join(f"v {factor * x} {factor * y} 0\n" for x, y in ((0, 0), (1, 0), (1, 1), (0, 1)))
    mesh = read_points(write(tmp_path / "m.obj", corners + "f 1 2 3\nf 1 3 4\n"), num_samples=2000)
    assert np.abs(mesh.points.mean(axis=0) / factor - [0.5, 0.5, 0]).max() < 0.04


BROKEN = {
    "short_row.txt": (b"1 2 3\n4 5\n", RuntimeError, "truncated"),
    "count.pts": (b"5\n1 2 3\n4 5 6\n", RuntimeError, "expected 5 points"),
    "more.pts": (b"1\n1 2 3\n4 5 6\n", RuntimeError, "expected 1 points"),
    "two.csv": (b"1,2\n3,4\n", ValueError, "at least 3"),
    "gap.csv": (b"1,,3,4\n1,,3,4\n", ValueError, "empty field"),
    "decimal.csv": (b"1,5;2,5;3,5\n", ValueError, "decimals with a point"),
    "mixed.txt": (b"1 2 abc\n1 2 3\n", RuntimeError, "not all numbers"),
    "header_only.csv": (b"x,y,z\n", ValueError, "no points"),
    "nan.xyz": (b"1 2 3\nnan 0 0\n", ValueError, "1 of 2 points"),
    "inf.ply": (ply(np.array([[0, 0, np.inf]])), ValueError, "NaN or infinite"),
    "binary.txt": (bytes(range(128, 255)), RuntimeError, "binary"),
    "empty.ply": (b"", RuntimeError, "0 bytes"),
    "cut.ply": (ply(POINTS, count=9), RuntimeError, "expected 9"),
    "cut_binary.ply": (ply(POINTS, count=9, binary=True), RuntimeError, "truncated"),
    "none.ply": (ply(np.zeros((0, 3))), ValueError, "no points"),
    "garbage.ply": (b"hello", RuntimeError, "damaged"),
    "cut_vertex.off": (b"OFF\n4 2 0\n0 0 0\n1 0 0\n", RuntimeError, "truncated"),
    "cut_face.off": (MESHES["m.off"][:-8].encode(), RuntimeError, "2 faces"),
    "wrong_face.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", RuntimeError, "damaged"),
    "flat.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", ValueError, "no area"),
    "cut.stl": (b"\0" * 80 + struct.pack("<I", 100) + b"\0" * 60, RuntimeError, "truncated"),
    "cut_ascii.pcd": (pcd(POINTS, "ascii")[:-60], RuntimeError, "truncated"),
    "cut_binary.pcd": (pcd(POINTS, "binary")[:-60], RuntimeError, "truncated"),
    "rows_missing.pcd": (pcd(POINTS, "binary")[:-48], RuntimeError, "truncated"),
    "cut_packed.pcd": (pcd(POINTS, "binary_compressed")[:-40], RuntimeError, "truncated"),
    "cut.npy": (b"\x93NUMPY\x01\x00", RuntimeError, "cannot be read"),
    "cut.npz": (b"PK\x03\x04 and nothing", RuntimeError, "cannot be read"),
    "a.e57": (b"ASTM-E57", ValueError, r"unknown format '.e57', expected one of .asc, .csv, .glb"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_broken_files_say_which_and_why(tmp_path, name):
    content, error, words = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        read_points(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.ply"):
        read_points(tmp_path / "absent.ply")
    with pytest.raises(ValueError, match="num_samples"):
        read_points(tmp_path / "absent.ply", num_samples=0)
    np.save(tmp_path / "text.npy", np.array([["a", "b", "c"]]))
    with pytest.raises(TypeError, match="real numbers"):
        read_points(tmp_path / "text.npy")
    np.savez(tmp_path / "k.npz", a=POINTS, b=POINTS)
    with pytest.raises(ValueError, match="got a, b"):
        read_points(tmp_path / "k.npz")


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RuntimeError, match="cannot be read"):
        read_points(tmp_path / "p.npy")


def test_missing_pcd_parser_names_the_command(tmp_path, monkeypatch):
    (tmp_path / "a.pcd").write_bytes(pcd(POINTS, "ascii"))
    monkeypatch.setitem(sys.modules, "pypcd4", None)
    with pytest.raises(ImportError, match="pip install pypcd4"):
        read_points(tmp_path / "a.pcd")


def test_formats_are_those_promised():
    meshes, points = (
        {".glb", ".gltf", ".off", ".obj", ".ply", ".stl"},
        {".asc", ".csv", ".las", ".laz", ".npy", ".npz", ".pcd", ".pts", ".txt", ".xyz", ".xyzn", ".xyzrgb"},
    )
    assert set(FORMATS) == meshes | points


@pytest.mark.parametrize(("up", "index"), [("x", 0), ("y", 1), ("z", 2)])
def test_up_becomes_y_without_a_mirror(tmp_path, up, index):
    np.savetxt(tmp_path / "a.xyz", np.concatenate([POINTS, NORMALS], axis=1), fmt="%.17g")
    cloud = read_points(tmp_path / "a.xyz")
    turned = cloud.turned(up)
    for before, after in ((cloud.points, turned.points), (cloud.normals, turned.normals)):
        assert np.array_equal(after[:, 1], before[:, index])
        assert np.allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1))
    assert np.linalg.det(turn_to_y(np.eye(3), up)) == 1
    with pytest.raises(ValueError, match="up: unknown value 'w', expected one of x, y, z"):
        cloud.turned("w")


@pytest.mark.parametrize("index", [[2, 0], [False, True, True]])
def test_normals_of_a_subset_are_those_of_its_points(index):
    part = Cloud(Path("a"), POINTS, NORMALS).subset(np.array(index))
    assert np.array_equal(part.points, POINTS[index])
    assert np.array_equal(part.normals, NORMALS[index])
    assert Cloud(Path("a"), POINTS).subset(np.array(index)).normals is None


def test_of_x_up_z_stays():
    assert turn_to_y(np.eye(3), "x").tolist() == [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]


def test_files_of_cad_programs_turn_as_usual():
    """What points to the front and up where z is up (-y, z) does so where y is up (z, y)."""
    assert turn_to_y(np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]]), "z").tolist() == [
        [0, 0, 1],
        [0, 1, 0],
        [1, 0, 0],
    ]
