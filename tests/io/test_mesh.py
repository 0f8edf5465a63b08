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
    with pytest.raises(
        RuntimeError,
        match=r"a\.obj: (expected points of three coordinates|no face and no point could be read)[,;] .*truncated",
    ):
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


def write_ply(path, form, vertices, rows, more=""):
    """Write vertices, and rows of ints that begin with their own number."""
    header = HEADER.format(form=form, faces=len(rows), more=more).replace(
        "vertex 4", f"vertex {len(vertices)}"
    )
    order = ">" if "big" in form else "<"
    if form == "ascii":
        body = "".join(" ".join(map(str, row)) + "\n" for row in [*vertices, *rows]).encode()
    else:
        body = np.array(vertices, f"{order}f4").tobytes()
        body += b"".join(struct.pack(f"{order}B{len(row) - 1}i", *row) for row in rows)
    path.write_bytes(header.encode() + body)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("rows", [[(4, 0, 1, 2, 3), (3, 1, 4, 2)], [(3, 1, 4, 2), (4, 0, 1, 2, 3)]])
def test_a_ply_of_triangles_and_quads_is_read(tmp_path, form, rows):
    """As Blender writes a mesh; a square, and right of it a triangle of the same area."""
    write_ply(tmp_path / "a.ply", form, [*CORNERS, (3, 0, 0)], rows)
    x, y, _ = read_points(tmp_path / "a.ply", num_samples=4000).points.T
    assert abs((x > 1).mean() - 0.5) < 4 * np.sqrt(0.25 / 4000)
    assert abs(x[x < 1].mean() - 0.5) < 0.04
    assert abs(x[x > 1].mean() - 5 / 3) < 0.05
    assert np.all(y <= np.where(x > 1, (3 - x) / 2, 1) + 1e-6)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_a_ply_with_texture_and_a_loose_vertex_is_read(tmp_path, form):
    header = HEADER.format(form=form, faces=2, more="property list uchar float texcoord\n")
    header = header.replace("vertex 4", "vertex 5").replace("1.0\n", "1.0\ncomment TextureFile a.png\n", 1)
    faces, uv = [(0, 1, 2), (0, 2, 3)], (0.0, 0.5, 1.0, 0.5, 1.0, 0.0)
    body = np.array([*CORNERS, (9, 9, 9)], "<f4").tobytes()
    body += b"".join(struct.pack("<B3iB6f", 3, *face, 6, *uv) for face in faces)
    if form == "ascii":
        rows = [*CORNERS, (9, 9, 9), *((3, *face, 6, *uv) for face in faces)]
        body = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    (tmp_path / "a.ply").write_bytes(header.encode() + body)
    covers_the_square(tmp_path / "a.ply")


@pytest.mark.parametrize("form", ["ascii", "binary_big_endian"])
def test_strips_of_triangles_are_faces(tmp_path, form):
    """Of Stanford's scans; every other triangle of a strip runs the other way round."""
    rows = [(4, 0, 1, 3, 2), (8, 4, 5, 7, -1, 5, 6, 7, -1)]
    vertices = [*CORNERS, *((x + 1, y, z) for x, y, z in CORNERS)]
    write_ply(tmp_path / "a.ply", form, vertices, rows)
    content = (tmp_path / "a.ply").read_bytes().replace(b"element face", b"element tristrips")
    (tmp_path / "a.ply").write_bytes(content)
    cloud = read_points(tmp_path / "a.ply", num_samples=4000)
    assert cloud.from_mesh
    assert np.allclose(cloud.normals, [0, 0, 1])
    assert np.abs(cloud.points.mean(axis=0) - [1, 0.5, 0]).max() < 0.05


def test_names_of_a_ply_in_capitals_are_read(tmp_path):
    write_ply(tmp_path / "a.ply", "ascii", CORNERS, [])
    content = (tmp_path / "a.ply").read_text()
    for axis in "xyz":
        content = content.replace(f"float {axis}\n", f"float {axis.upper()}\n")
    (tmp_path / "a.ply").write_text(content)
    assert np.array_equal(read_points(tmp_path / "a.ply").points, CORNERS)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("rows", [[(3, 0, 1, 2), (3, 0, 2, 3)], [(4, 0, 1, 2, 3), (3, 0, 1, 2)]])
def test_a_ply_cut_anywhere_is_refused(tmp_path, form, rows):
    write_ply(tmp_path / "a.ply", form, CORNERS, rows)
    content = (tmp_path / "a.ply").read_bytes()
    for length in range(1, len(content) - (2 if form == "ascii" else 0)):
        (tmp_path / "a.ply").write_bytes(content[:length])
        with pytest.raises(RuntimeError, match=r"a\.ply: .*truncated"):
            read_points(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vertex 4", "vertex 100000000000000"),
        ("face 2", "face 100000000000000"),
        ("vertex 4", "vertex -4"),
        ("float x", "quadruple x"),
        ("float x", "float u"),
        ("property float x", "property list uchar float x"),
        ("vertex_indices", "vertex_numbers"),
        ("format", "shape"),
        ("list uchar", "list float"),
    ],
)
@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_a_ply_whose_header_lies_is_refused(tmp_path, form, old, new):
    write_ply(tmp_path / "a.ply", form, CORNERS, [(3, 0, 1, 2), (3, 0, 2, 3)])
    content = (tmp_path / "a.ply").read_bytes()
    if (form, new) == ("ascii", "list float"):
        content, old, new = content.replace(b"3 0 1 2", b"nan 0 1 2"), "", ""
    (tmp_path / "a.ply").write_bytes(content.replace(old.encode(), new.encode()))
    with pytest.raises(RuntimeError, match=r"a\.ply: .*truncated or damaged") as caught:
        read_points(tmp_path / "a.ply")
    assert "\n" not in str(caught.value)


def test_rows_of_no_numbers_take_no_time(tmp_path):
    write_ply(tmp_path / "a.ply", "binary_little_endian", CORNERS, [(3, 0, 1, 2), (3, 0, 2, 3)])
    content = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(
        content.replace(b"element face", b"element none 99999999999999\nelement face")
    )
    covers_the_square(tmp_path / "a.ply")


@pytest.mark.parametrize("face", [(3, 0, 1, 9), (3, 0, 1, -2), (3, 0, 1, 1.5), (3, 0, 1, "nan"), (2, 0, 1)])
def test_a_face_of_no_vertices_is_refused(tmp_path, face):
    write_ply(tmp_path / "a.ply", "ascii", CORNERS, [face])
    with pytest.raises(RuntimeError, match=r"a\.ply: .*damaged"):
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
