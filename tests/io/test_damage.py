import io
import tokenize
import zlib

import numpy as np
import pytest

from bixt3d.io import read_points

POINTS = np.random.default_rng(0).normal(size=(300, 3))


def refused(path, cause):
    with pytest.raises(RuntimeError, match="may be truncated or damaged") as caught:
        read_points(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, cause)


def test_flipped_bytes_in_a_compressed_archive(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, points=POINTS)
    content = bytearray(path.read_bytes())
    content[60:160] = b"\xff" * 100
    path.write_bytes(content)
    refused(path, zlib.error)


def test_a_huge_count_in_a_header(tmp_path):
    head = io.BytesIO()
    shape = {"descr": "<f8", "fortran_order": False, "shape": (10**14, 3)}
    np.lib.format.write_array_header_1_0(head, shape)
    (tmp_path / "a.npy").write_bytes(head.getvalue() + POINTS.tobytes())
    refused(tmp_path / "a.npy", MemoryError)
    size = 10**14
    (tmp_path / "a.pcd").write_text(
        "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
        f"WIDTH {size}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {size}\nDATA binary\n"
    )
    refused(tmp_path / "a.pcd", Exception)


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize(("field", "points"), [(3_000_000_000, 1), (3_000_000_000, 0), (1, 2_000_000_000)])
def test_a_pcd_of_more_numbers_than_fit_is_refused_at_once(tmp_path, data, field, points):
    """The parser would make a name for each of them, for minutes, and take as much memory as there is."""
    (tmp_path / "a.pcd").write_text(
        f"VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 {field}\n"
        f"WIDTH {points}\nHEIGHT 1\nPOINTS {points}\nDATA {data}\n1 2 3\n"
    )
    with pytest.raises(
        RuntimeError, match=rf"a\.pcd: .* too small for {points} points of {field + 2} numbers"
    ):
        read_points(tmp_path / "a.pcd")


def test_a_compressed_pcd_may_be_far_smaller_than_its_points(tmp_path):
    pypcd4 = pytest.importorskip("pypcd4")
    cloud = pypcd4.PointCloud.from_xyz_points(np.ones((100_000, 3), np.float32))
    cloud.save(tmp_path / "a.pcd", encoding=pypcd4.Encoding.BINARY_COMPRESSED)
    assert (tmp_path / "a.pcd").stat().st_size < 100_000 / 4
    assert np.array_equal(read_points(tmp_path / "a.pcd").points, np.ones((100_000, 3)))


def test_a_reason_that_quotes_the_file_is_cut(tmp_path):
    (tmp_path / "a.off").write_text("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 " + "9x" * 3000 + "\n")
    with pytest.raises(RuntimeError, match="may be truncated or damaged") as caught:
        read_points(tmp_path / "a.off")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_ply_with_a_row_that_lost_its_normal_is_refused(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\n"
        + "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
        + "end_header\n0 0 0 0 0 1\n1 0 0 0 0\n0 1 0 0 0 1\n"
    )
    with pytest.raises(RuntimeError, match=r"a\.ply: .* may be truncated"):
        read_points(tmp_path / "a.ply")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_normals_of_any_length_have_a_direction(tmp_path, scale):
    vectors = np.tile(np.array([[0.6, 0.0, 0.8], [0.0, -1.0, 0.0]]), (150, 1))
    np.savez(tmp_path / "a.npz", points=POINTS, normals=vectors * scale)
    np.savetxt(tmp_path / "a.csv", np.hstack([POINTS, vectors * scale]), header="x y z nx ny nz")
    np.save(tmp_path / "a.npy", np.hstack([POINTS, vectors * scale]))
    for name in ("a.npz", "a.csv"):
        assert np.allclose(read_points(tmp_path / name).normals, vectors, atol=1e-15)
    assert (read_points(tmp_path / "a.npy").normals is None) == (scale != 1)  # nothing calls these normals


def test_a_broken_header(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"}", b"("))
    refused(tmp_path / "a.npy", (ValueError, tokenize.TokenError))
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_inbices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    )
    refused(tmp_path / "a.ply", ValueError)


def test_arrays_that_lie_on_their_side_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", POINTS.T)
    np.savetxt(tmp_path / "a.txt", POINTS.T)
    np.savez(tmp_path / "a.npz", points=POINTS.T)
    for suffix in ("npy", "txt", "npz"):
        with pytest.raises(ValueError, match=rf"a\.{suffix}: .* shape \(3, 300\); transpose it"):
            read_points(tmp_path / f"a.{suffix}")
    np.save(tmp_path / "few.npy", np.arange(24.0).reshape(3, 8))  # few points with many columns are points
    assert len(read_points(tmp_path / "few.npy")) == 3


def test_a_missing_path_is_missing_before_its_suffix_is_unknown(tmp_path):
    for name in ("scans", "scans.las", "scan.ply"):
        with pytest.raises(FileNotFoundError, match=f"{name}: there is no such file or folder"):
            read_points(tmp_path / name)
    with pytest.raises(ValueError, match="expected a file, got a folder"):
        read_points(tmp_path)
