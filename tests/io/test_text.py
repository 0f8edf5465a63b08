import numpy as np
import pytest

from bixt3d.io import read_points

POINTS = np.array([[0.5, -2.25, 3.0], [4.0, 5.5, -6.75], [7.0, 8.0, 9.5]])
NORMALS = np.array([[0.0, 0.0, 2.0], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0]])


def read(tmp_path, text, name="a.csv"):
    (tmp_path / name).write_text(text)
    return read_points(tmp_path / name)


def table(header, *columns, sep=","):
    return header + "\n" + "".join(sep.join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


X, Y, Z = POINTS.T.tolist()
IDS, CLASSES = [17, 18, 19], ["chair", "a,b", "lamp"]


@pytest.mark.parametrize(
    "text",
    [
        table("id,x,y,z", IDS, X, Y, Z),
        table("Z;Y;X", Z, Y, X, sep=";"),
        table(",x,y,z", IDS, X, Y, Z),  # as pandas writes its index
        table(";x;y;z", IDS, X, Y, Z, sep=";"),
        table("x\tlabel\tz\ty", X, IDS, Z, Y, sep="\t"),
        table("# id x y z", IDS, X, Y, Z, sep=" "),  # as numpy.savetxt writes a header
        table('"name","x","y","z"', [f'"{name}"' for name in CLASSES], X, Y, Z),
        table("my scan\nid,x,y,z", IDS, X, Y, Z),
        table("x,y,z,label", X, Y, Z, ["", "", 3]),
        table("# the y of this scan is up, not z or x", X, Y, Z),
        table("# id a b c", X, Y, Z),
        table("id,Points:0,Points:1,Points:2", IDS, X, Y, Z),  # as ParaView writes
        table('"Points_2","id","Points_1","Points_0"', Z, IDS, Y, X),
        table("//X Y Z R G B\n3", X, Y, Z, IDS, sep=" "),  # as many names as columns, or they are none
    ],
)
def test_columns_are_found_by_their_names(tmp_path, text):
    cloud = read(tmp_path, text)
    assert np.array_equal(cloud.points, POINTS)
    assert cloud.normals is None


def test_normals_are_found_by_their_names(tmp_path):
    nx, ny, nz = NORMALS.T.tolist()
    cloud = read(tmp_path, table("nx,ny,nz,x,y,z,id", nx, ny, nz, X, Y, Z, IDS))
    assert np.array_equal(cloud.points, POINTS)
    assert np.allclose(cloud.normals, [[0, 0, 1], [0.6, 0.8, 0], [1, 0, 0]])
    # with names there is no guess: unit vectors of another name are no normals
    assert read(tmp_path, table("x,y,z,r,g,b", X, Y, Z, [0, 0, 0], [1, 1, 1], [0, 0, 0])).normals is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            table("id,east,north,up", IDS, X, Y, Z),
            "header that names x, y and z once each, got 'id,east,north,up'",
        ),
        (table("x,y,z,x,y,z", X, Y, Z, X, Y, Z), "x, y and z once each"),
        (table("id,Points:0,Points:1,Normals:2", IDS, X, Y, Z), "x, y and z once each"),
        (table("x y z", IDS, X, Y, Z, sep=" "), "the header names 3 columns, but a row has 4"),  # as R writes
        (table("id,x,y,z", IDS, X, Y, Z) + "1,2,3\n", "names 4 columns, but a row has 3, got '1,2,3'"),
        (table("id,x,y,z", IDS, X, Y, ["", 1, 2]), "names 4 columns, but a row has|could not convert"),
    ],
)
def test_unclear_headers_are_refused(tmp_path, text, words):
    with pytest.raises((ValueError, RuntimeError), match=words) as caught:
        read(tmp_path, text)
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize("sep", ["\t", " ", ";", "  "])
@pytest.mark.parametrize("header", ["", "x y z\n"])
def test_decimal_commas_are_refused(tmp_path, sep, header):
    rows = header + f"0,125730{sep}-0,132105{sep}0,640423\n" * 3
    with pytest.raises(ValueError, match=r"a\.txt: .* decimal commas, got '0,125730.* decimals with a point"):
        read(tmp_path, rows, "a.txt")
    with pytest.raises(ValueError, match="decimal commas, got '0,125730"):  # not in the first row
        read(tmp_path, "1 2 3\n" + rows.removeprefix(header), "a.txt")


def test_quoted_cells_and_numbers_of_fortran(tmp_path):
    rows = [[f'"{value}"' for value in axis] for axis in (X, Y, Z)]
    assert np.array_equal(read(tmp_path, table('"x","y","z"', *rows)).points, POINTS)
    assert np.array_equal(read(tmp_path, table("# no names", *rows)).points, POINTS)
    text = " 0.5D+00 -2.25d0 3.D0\n 4D0 55.0D-01 -0.675D+01\n 7.0D0 8.0D0 9.5D0\n"
    assert np.array_equal(read(tmp_path, text).points, POINTS)


def test_empty_cells_are_refused_wherever_they_are(tmp_path):
    for gap in ("1,,3", ",2,3", "1, ,3", "1,2,,"):
        for text in (f"{gap}\n1,2,3\n", f"1,2,3\n{gap}\n"):
            with pytest.raises(ValueError, match=f"empty field, got {gap!r}"):
                read(tmp_path, text)
    assert np.array_equal(read(tmp_path, "1,2,3,\n4,5,6,\n").points, [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match="empty field, got ';1;2'"):  # a row, not a comment
        read(tmp_path, "0;1;2\n;1;2\n")


def test_normals_of_paraview_are_found(tmp_path):
    header = "Normals:0,Normals:1,Normals:2,Points:0,Points:1,Points:2"
    cloud = read(tmp_path, table(header, *NORMALS.T.tolist(), X, Y, Z))
    assert np.array_equal(cloud.points, POINTS)
    assert np.allclose(cloud.normals, [[0, 0, 1], [0.6, 0.8, 0], [1, 0, 0]])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16"])
@pytest.mark.parametrize("header", ["x,y,z,H\u00f6he", "# H\u00f6he \u00fcber NN\nx,y,z,h"])
def test_letters_of_any_encoding_are_read(tmp_path, encoding, header):
    (tmp_path / "a.csv").write_bytes(table(header, X, Y, Z, IDS).encode(encoding))
    assert np.array_equal(read_points(tmp_path / "a.csv").points, POINTS)


def test_a_big_endian_text_and_a_line_of_dots_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xfe\xff" + table("x,y,z", X, Y, Z).encode("utf-16-be"))
    assert np.array_equal(read_points(tmp_path / "a.txt").points, POINTS)
    (tmp_path / "a.txt").write_bytes(
        table("# one \u2026 line", X, Y, Z).encode("cp1252")
    )  # a line break in latin-1
    assert np.array_equal(read_points(tmp_path / "a.txt").points, POINTS)


def test_numbers_as_bytes_are_no_text(tmp_path):
    (tmp_path / "a.xyz").write_bytes(POINTS.astype("<f4").tobytes())
    with pytest.raises(RuntimeError, match=r"a\.xyz: expected text, got binary data"):
        read_points(tmp_path / "a.xyz")


def test_suffixes_that_say_what_the_columns_are(tmp_path):
    rows = table("", X, Y, Z, *NORMALS.T.tolist(), sep=" ")
    normals = read(tmp_path, rows, "a.xyzn").normals  # of any length
    assert np.allclose(normals, [[0, 0, 1], [0.6, 0.8, 0], [1, 0, 0]])
    unit = table("", X, Y, Z, [0, 0.6, 1], [0, 0.8, 0], [1, 0, 0], sep=" ")
    assert read(tmp_path, unit, "a.asc").normals is not None
    colours = read(tmp_path, unit, "a.xyzrgb")
    assert np.array_equal(colours.points, POINTS)
    assert colours.normals is None
    assert np.array_equal(read(tmp_path, table("//X Y Z", X, Y, Z, sep=" "), "a.asc").points, POINTS)
    with pytest.raises(ValueError, match=r"a\.xyzn: expected rows of 6 numbers \(x y z nx ny nz\), got 3"):
        read(tmp_path, table("", X, Y, Z, sep=" "), "a.xyzn")


@pytest.mark.parametrize("count", ["9" * 5000, "\u00b2"])
def test_a_count_that_is_none_names_the_file(tmp_path, count):
    (tmp_path / "a.pts").write_text(f"{count}\n1 2 3\n", encoding="utf-8")
    with pytest.raises((ValueError, RuntimeError), match=r"a\.pts: "):
        read_points(tmp_path / "a.pts")
