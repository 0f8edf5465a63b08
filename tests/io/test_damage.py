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


def test_a_broken_header(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"}", b"("))
    refused(tmp_path / "a.npy", (ValueError, tokenize.TokenError))
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_inbices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    )
    refused(tmp_path / "a.ply", UnboundLocalError)


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
