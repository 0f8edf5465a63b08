import logging
import struct

import numpy as np
import pytest

from bixt3d.io import read_points

POINTS = np.array([[0.5, -2.25, 3.0], [4.0, 5.5, -6.75], [7.0, 8.0, 9.5], [1.0, 0.0, 2.0]])
NORMALS = np.array([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
ENCODINGS = ["ascii", "binary", "binary_compressed"]


def pcd(rows, encoding, *, names="x y z normal_x normal_y normal_z", count=True, size=8, announced=None):
    fields = len(names.split())
    head = f"# .PCD v0.7\nVERSION 0.7\nFIELDS {names}\nSIZE{f' {size}' * fields}\nTYPE{' F' * fields}\n"
    head += f"COUNT{' 1' * fields}\n" if count else ""
    head += (
        f"WIDTH {len(rows) // 2}\nHEIGHT 2\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA {encoding}\n"
    )
    if encoding == "ascii":
        body = "".join(" ".join(map(str, row)) + "\n" for row in rows.tolist()).encode()
    elif encoding == "binary":
        body = rows.astype("<f8").tobytes()
    else:
        raw = rows.T.astype("<f8").tobytes()[:announced]
        packed = b"".join(bytes([len(raw[i : i + 32]) - 1]) + raw[i : i + 32] for i in range(0, len(raw), 32))
        body = struct.pack("<II", len(packed), len(raw)) + packed
    return head.encode() + body


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_field_is_one_number_where_no_count_says_otherwise(tmp_path, encoding):
    (tmp_path / "a.pcd").write_bytes(pcd(np.hstack([POINTS, NORMALS]), encoding, count=False))
    cloud = read_points(tmp_path / "a.pcd")
    assert np.array_equal(cloud.points, POINTS)
    assert np.allclose(cloud.normals, NORMALS)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_missing_returns_are_left_out_and_counted(tmp_path, encoding, caplog):
    rows = np.hstack([POINTS, NORMALS])
    rows[1] = np.nan
    rows[3, 2] = np.nan
    (tmp_path / "a.pcd").write_bytes(pcd(rows, encoding))
    with caplog.at_level(logging.WARNING):
        cloud = read_points(tmp_path / "a.pcd")
    assert np.array_equal(cloud.points, POINTS[[0, 2]])
    assert np.allclose(cloud.normals, NORMALS[[0, 2]])
    assert caplog.messages == [
        f"{tmp_path / 'a.pcd'}: left out 2 of 4 points, which are NaN (missing returns)"
    ]


def test_a_cloud_without_any_return_is_refused_and_so_is_an_infinite_one(tmp_path):
    (tmp_path / "a.pcd").write_bytes(pcd(np.full((4, 6), np.nan), "binary"))
    with pytest.raises(ValueError, match=r"a\.pcd: all 4 points are NaN"):
        read_points(tmp_path / "a.pcd")
    rows = np.hstack([POINTS, NORMALS])
    rows[2, 0] = np.inf
    (tmp_path / "a.pcd").write_bytes(pcd(rows, "binary"))
    with pytest.raises(ValueError, match=r"a\.pcd: 1 of 4 points have NaN or infinite"):
        read_points(tmp_path / "a.pcd")


@pytest.mark.parametrize("short", [1, 8, 3 * 8, 4 * 8])
def test_compressed_data_shorter_than_the_header_says_is_refused(tmp_path, short):
    """With one number left of a column, every point would get it."""
    content = pcd(POINTS, "binary_compressed", names="x y z", announced=4 * 3 * 8 - short)
    (tmp_path / "a.pcd").write_bytes(content)
    with pytest.raises(RuntimeError, match=r"a\.pcd: .*truncated or damaged"):
        read_points(tmp_path / "a.pcd")


@pytest.mark.parametrize("size", [2, 3, 16, "4 4"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_sizes_that_no_number_has_are_refused(tmp_path, encoding, size):
    content = pcd(POINTS, encoding, names="x y z", size=size)
    (tmp_path / "a.pcd").write_bytes(content)
    if size == "4 4":
        (tmp_path / "a.pcd").write_bytes(content.replace(b"SIZE 4 4 4 4 4 4", b"SIZE 4 4"))
    with pytest.raises(RuntimeError, match=r"a\.pcd: .*truncated or damaged") as caught:
        read_points(tmp_path / "a.pcd")
    assert "\n" not in str(caught.value)
