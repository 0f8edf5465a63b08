import struct
import subprocess
import sys

import numpy as np
import pytest

from bixt3d.io import read_points

CORNERS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
HEADER = (
    "ply\nformat {form} 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    "element face {faces}\nproperty list uchar int vertex_indices\n{more}end_header\n"
)


def covers_the_square(path):
    cloud = read_points(path, num_samples=2000)
    assert cloud.from_mesh
    assert np.abs(cloud.points[:, :2].mean(axis=0) - 0.5).max() < 0.04
    assert np.all(cloud.points[:, 2] == 0)


@pytest.mark.parametrize(
    ("before_v", "before_f", "after"),
    [("  ", "  ", " "), ("", " ", " "), (" ", "", " "), ("\t", "\t", " "), ("", "", "\t"), ("", "", "  ")],
)
def test_obj_lines_may_be_indented_and_use_tabs(tmp_path, before_v, before_f, after):
    lines = [before_v + after.join(["v", *map(str, corner)]) for corner in CORNERS]
    lines += [before_f + after.join(["f", *face]) for face in ("123", "134")]
    for end in ("\n", "\r\n"):
        (tmp_path / "a.obj").write_bytes((end.join(lines) + end).encode())
        covers_the_square(tmp_path / "a.obj")


def test_an_obj_that_ends_within_a_point_is_refused(tmp_path):
    """trimesh cuts all rows to two numbers then, and three rows of two are as many as two of three."""
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1")
    with pytest.raises(RuntimeError, match=r"a\.obj: expected points of three coordinates, .*truncated"):
        read_points(tmp_path / "a.obj")


def stl(name, *triangles):
    facets = (
        "facet normal 0 0 1\n outer loop\n"
        + "".join(f"  vertex {x} {y} {z}\n" for x, y, z in (CORNERS[i] for i in triangle))
        + " endloop\nendfacet\n"
        for triangle in triangles
    )
    return f"solid {name}\n{''.join(facets)}endsolid {name}\n"


def test_all_solids_of_an_stl_are_read(tmp_path):
    text = stl("left", (0, 1, 2)) + stl("right", (0, 2, 3))
    (tmp_path / "a.stl").write_text(text)
    covers_the_square(tmp_path / "a.stl")
    (tmp_path / "cut.stl").write_text(text[: text.rindex("endsolid")])
    with pytest.raises(RuntimeError, match=r"cut\.stl: expected 6 vertices and 2 faces, .* got 3 and 1"):
        read_points(tmp_path / "cut.stl")


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_edges_of_a_ply_are_passed_over_without_scipy(tmp_path, form):
    more = "element edge 1\nproperty int vertex1\nproperty int vertex2\n"
    if form == "ascii":
        body = "".join("{} {} {}\n".format(*corner) for corner in CORNERS) + "3 0 1 2\n3 0 2 3\n0 1\n"
        body = body.encode()
    else:
        body = np.array(CORNERS, "<f4").tobytes() + struct.pack("<B3iB3i2i", 3, 0, 1, 2, 3, 0, 2, 3, 0, 1)
    (tmp_path / "a.ply").write_bytes(HEADER.format(form=form, faces=2, more=more).encode() + body)
    covers_the_square(tmp_path / "a.ply")
    code = (
        "import sys; sys.modules['scipy'] = None; from bixt3d.io import read_points; "
        f"print(len(read_points({str(tmp_path / 'a.ply')!r}, num_samples=7)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "7\n"


def test_binary_ply_of_triangles_and_quads_says_what_to_do(tmp_path):
    body = np.array(CORNERS, "<f4").tobytes() + struct.pack("<B3iB4i", 3, 0, 1, 2, 4, 0, 1, 2, 3)
    header = HEADER.format(form="binary_little_endian", faces=2, more="")
    (tmp_path / "a.ply").write_bytes(header.encode() + body)
    with pytest.raises(RuntimeError, match=r"a\.ply: .* different numbers of corners \(triangulate it"):
        read_points(tmp_path / "a.ply")


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_a_ply_that_ends_before_its_faces_is_refused(tmp_path, form):
    """Its points alone would pass for a cloud."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    body = {
        "ascii": b"0 0 0\n1 0 0\n0 1 0\n",
        "binary_little_endian": corners.astype("<f4").tobytes(),
        "binary_big_endian": corners.astype(">f4").tobytes(),
    }[form]
    header = (
        f"ply\nformat {form} 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    (tmp_path / "a.ply").write_bytes(header.encode() + body)
    with pytest.raises(RuntimeError, match=r"a\.ply: .*truncated"):
        read_points(tmp_path / "a.ply")
