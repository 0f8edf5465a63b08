"""Labels of points, as the formats hold them."""

import numpy as np
import pytest

from bixt3d.io import read_points
from bixt3d.io.writing import write_npz, write_ply

POINTS = np.array([[0.5, -2.25, 3.0], [4.0, 5.5, -6.75], [7.0, 8.0, 9.5], [1.0, 0.0, 2.0]])
NORMALS = np.array([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
COLORS = np.array([[9, 200, 31], [0, 0, 0], [255, 1, 2], [30, 40, 50]])
LABELS = np.array([2, 0, -1, 1])


def rows(*columns, separator=" "):
    table = np.concatenate([np.reshape(column, (len(POINTS), -1)) for column in columns], axis=1)
    return "".join(separator.join(f"{value:g}" for value in row) + "\n" for row in table)


def ply(names, *columns, kind="double"):
    properties = "".join(f"property {kind} {name}\n" for name in names.split())
    return f"ply\nformat ascii 1.0\nelement vertex {len(POINTS)}\n{properties}end_header\n{rows(*columns)}"


def pcd(names, *columns):
    n = len(names.split())
    return (
        f"VERSION 0.7\nFIELDS {names}\nSIZE{' 4' * n}\nTYPE{' F' * n}\nCOUNT{' 1' * n}\nWIDTH {len(POINTS)}\n"
        f"HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(POINTS)}\nDATA ascii\n{rows(*columns)}"
    )


TEXTS = {
    "property.ply": ply("x y z label", POINTS, LABELS),
    "cloudcompare.ply": ply("x y z scalar_Label", POINTS, LABELS, kind="float"),
    "survey.ply": ply("x y z nx ny nz scalar_Classification", POINTS, NORMALS, LABELS),
    "class.ply": ply("x y z class", POINTS, LABELS),
    "field.pcd": pcd("x y z label", POINTS, LABELS),
    "header.csv": "X,Y,Z,R,G,B,Label\n" + rows(POINTS, COLORS, LABELS, separator=","),
    "normals.txt": "nx ny nz part x y z\n" + rows(NORMALS, LABELS, POINTS),
    "cloudcompare.asc": "//X Y Z R G B Classification\n" + rows(POINTS, COLORS, LABELS),
    "four.xyz": rows(POINTS, LABELS),
    "shapenetpart.txt": rows(POINTS, NORMALS, LABELS),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_format_gives_its_labels_when_they_are_asked_for(tmp_path, name):
    (tmp_path / name).write_text(TEXTS[name])
    cloud = read_points(tmp_path / name, labels=True)
    assert cloud.labels.dtype == np.int64
    assert np.array_equal(cloud.labels, LABELS)
    assert np.array_equal(cloud.points, POINTS)
    without = read_points(tmp_path / name)
    assert without.labels is None
    assert np.array_equal(without.points, POINTS)
    has_normals = name in ("survey.ply", "normals.txt", "shapenetpart.txt")
    for one in (cloud, without):
        assert (one.normals is not None) == has_normals
        assert one.normals is None or np.allclose(one.normals, NORMALS)


@pytest.mark.parametrize(
    "stored", [LABELS, LABELS[:, None], LABELS.astype(np.float32), LABELS.astype(np.int8)]
)
def test_arrays(tmp_path, stored):
    np.savez(tmp_path / "a.npz", points=POINTS, labels=stored, normals=NORMALS)
    cloud = read_points(tmp_path / "a.npz", labels=True)
    assert np.array_equal(cloud.labels, LABELS)
    assert np.allclose(cloud.normals, NORMALS)
    assert read_points(tmp_path / "a.npz").labels is None
    np.save(tmp_path / "a.npy", np.column_stack([POINTS, NORMALS, LABELS]))
    assert np.array_equal(read_points(tmp_path / "a.npy", labels=True).labels, LABELS)


def test_what_is_written_reads_back(tmp_path):
    write_ply(tmp_path / "a.ply", POINTS, COLORS.astype(np.uint8), LABELS, NORMALS)
    write_npz(tmp_path / "a.npz", {"points": POINTS, "labels": LABELS, "names": np.array(["a/b"])})
    for name in ("a.ply", "a.npz"):
        cloud = read_points(tmp_path / name, labels=True)
        assert np.array_equal(cloud.labels, LABELS)
        assert np.array_equal(cloud.points, POINTS)
    assert np.allclose(read_points(tmp_path / "a.ply").normals, NORMALS, atol=1e-7)
    with pytest.raises(ValueError, match=r"normals: expected shape \(4, 3\), one per point, got \(3, 3\)"):
        write_ply(tmp_path / "b.ply", POINTS, COLORS.astype(np.uint8), LABELS, NORMALS[:3])


@pytest.mark.parametrize("kind", [0, 7])
@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_las_gives_a_dimension_called_label_or_else_the_classification(tmp_path, kind, suffix):
    laspy = pytest.importorskip("laspy", reason="needs pip install -e '.[las]'")
    header = laspy.LasHeader(point_format=kind, version="1.4" if kind > 5 else "1.2")
    plain = laspy.LasData(header)
    plain.x, plain.y, plain.z = POINTS.T
    plain.classification = np.array([2, 0, 6, 1])
    plain.write(str(tmp_path / f"plain.{suffix}"))
    header.add_extra_dim(laspy.ExtraBytesParams(name="Label", type=np.float32))
    more = laspy.LasData(header)
    more.x, more.y, more.z = POINTS.T
    more.classification = np.array([2, 0, 6, 1])
    more["Label"] = [2, 0, np.nan, 1]
    more.write(str(tmp_path / f"more.{suffix}"))
    for name, expected in (("plain", [2, 0, 6, 1]), ("more", LABELS)):
        path = tmp_path / f"{name}.{suffix}"
        cloud = read_points(path, labels=True)
        assert np.array_equal(cloud.labels, expected)
        assert read_points(path).labels is None
        assert np.array_equal(cloud.points, read_points(path).points)


def test_points_that_cloudcompare_gave_no_value_have_no_label(tmp_path):
    values = np.array([2, 0, np.nan, 1])
    (tmp_path / "a.ply").write_text(ply("x y z scalar_label", POINTS, values, kind="float"))
    (tmp_path / "a.asc").write_text("//X Y Z Label\n" + rows(POINTS, values))
    for name in ("a.ply", "a.asc"):
        assert np.array_equal(read_points(tmp_path / name, labels=True).labels, LABELS)


def test_the_first_of_the_known_names_counts(tmp_path):
    (tmp_path / "a.ply").write_text(ply("x y z Classification Label", POINTS, LABELS * 0 + 5, LABELS))
    assert np.array_equal(read_points(tmp_path / "a.ply", labels=True).labels, LABELS)
    (tmp_path / "b.ply").write_text(ply("x y z intensity", POINTS, LABELS))
    assert read_points(tmp_path / "b.ply", labels=True).labels is None


def test_in_bare_rows_colours_and_intensities_are_no_labels(tmp_path):
    tables = {
        "intensity.xyz": rows(POINTS, np.array([0.1, 0.5, 1, 0])),
        "colours.txt": rows(POINTS, COLORS),
        "leica.pts": "4\n" + rows(POINTS, LABELS, COLORS),  # x y z intensity r g b
        "more.txt": rows(POINTS, COLORS, LABELS, LABELS),
        "named.xyzrgb": rows(POINTS, NORMALS, LABELS),
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
        assert read_points(tmp_path / name, labels=True).labels is None, name


def test_missing_returns_take_their_labels_along(tmp_path):
    points = POINTS.copy()
    points[1] = np.nan
    (tmp_path / "a.pcd").write_text(pcd("x y z label", points, LABELS))
    assert read_points(tmp_path / "a.pcd", labels=True).labels.tolist() == [2, -1, 1]


def test_labels_stay_with_their_points(tmp_path):
    np.savez(tmp_path / "a.npz", points=POINTS, labels=LABELS)
    cloud = read_points(tmp_path / "a.npz", labels=True)
    assert cloud.subset(np.array([3, 0])).labels.tolist() == [1, 2]
    assert np.array_equal(cloud.turned("z").labels, LABELS)


def test_samples_of_a_mesh_have_none(tmp_path):
    vertices = "0 0 0 1\n1 0 0 1\n0 1 0 1\n"
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        f"property int label\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n{vertices}3 0 1 2\n"
    )
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    for name in ("a.ply", "a.off"):
        assert read_points(tmp_path / name, num_samples=5, labels=True).labels is None


WRONG = {
    "half.ply": (
        ply("x y z scalar_label", POINTS, LABELS + 0.5),
        "scalar_label: expected whole numbers .* got 2.5",
    ),
    "half.pcd": (pcd("x y z label", POINTS, LABELS / 2), "label: expected whole numbers .* got -0.5"),
    "huge.csv": ("x,y,z,label\n1,2,3,1e300\n", r"label: expected whole numbers as labels, got 1e\+300"),
    "inf.csv": ("x,y,z,label\n1,2,3,inf\n", "label: expected whole numbers as labels, got inf"),
    "word.csv": (
        "x,y,z,class\n1,2,3,0\n3,4,5,chair\n",
        "class: expected whole numbers as labels, got 'chair'",
    ),
    "empty.csv": (
        "x,y,z,label\n1,2,3,0\n3,4,5,\n",
        "label: expected whole numbers as labels, got ''; number the parts from 0, with -1 for none",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_labels_that_are_no_whole_numbers_are_refused_where_they_are_asked_for(tmp_path, name):
    text, words = WRONG[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: {words}"):
        read_points(tmp_path / name, labels=True)
    assert read_points(tmp_path / name).labels is None


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS[:3], r"labels: expected shape \(4,\), one for each point, got \(3,\)"),
        (3, r"labels: expected shape \(4,\), one for each point, got \(\)"),
        (["cup", "cup", "cup", "hat"], "labels: expected whole numbers as labels, got 'cup'"),
    ],
)
def test_arrays_that_are_no_labels(tmp_path, labels, words):
    np.savez(tmp_path / "a.npz", points=POINTS, labels=labels)
    with pytest.raises(ValueError, match=rf"a\.npz: {words}"):
        read_points(tmp_path / "a.npz", labels=True)
    assert len(read_points(tmp_path / "a.npz")) == 4
