import numpy as np
import pytest

from bixt3d.datasets import PointClouds


def make(**changes):
    values = {
        "points": np.arange(24, dtype=np.float32).reshape(2, 4, 3),
        "labels": np.array([0, 1]),
        "classes": ("a", "b"),
        "names": ("first", "second"),
        "part_labels": np.array([[0, 0, 0, 0], [1, 1, 1, 1]]),
        "parts": ("a/x", "b/y"),
    }
    return PointClouds(**(values | changes))


def test_select_picks_everything_in_step():
    picked = make().select(np.array([1, 0, 1]))
    assert picked.names == ("second", "first", "second")
    assert picked.labels.tolist() == [1, 0, 1]
    assert picked.points[:, 0, 0].tolist() == [12, 0, 12]
    assert picked.part_labels[:, 0].tolist() == [1, 0, 1]
    assert (picked.classes, picked.parts) == (("a", "b"), ("a/x", "b/y"))
    assert make(part_labels=None, parts=()).select(np.array([0])).part_labels is None


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"points": np.zeros((2, 4, 3))}, TypeError, "points: expected dtype float32, got float64"),
        ({"points": np.zeros((2, 4, 5), np.float32)}, ValueError, r"got \(2, 4, 5\)"),
        ({"points": np.full((2, 4, 3), np.nan, np.float32)}, ValueError, r"cloud 0 \(first\) has NaN"),
        ({"labels": np.array([0, 2])}, ValueError, r"cloud 1 \(second\) has label 2, expected 0 to 1"),
        ({"labels": np.array([0])}, ValueError, r"labels: expected shape \(2,\)"),
        ({"labels": np.array([0, 1], np.int32)}, TypeError, "labels: expected dtype int64"),
        ({"names": ("first",)}, ValueError, "names: expected 2"),
        ({"part_labels": np.zeros((2, 3), np.int64)}, ValueError, r"expected shape \(2, 4\)"),
        ({"part_labels": np.full((2, 4), -1)}, ValueError, "part_labels: cloud 0"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, words):
    with pytest.raises(error, match=words):
        make(**changes)


def test_a_cloud_far_down_is_named_by_its_own_number():
    """Clouds are checked a thousand at a time."""
    many = {"labels": np.zeros(2000, np.int64), "names": tuple(map(str, range(2000)))}
    points, parts = np.zeros((2000, 1, 3), np.float32), np.zeros((2000, 1), np.int64)
    points[1500, 0, 1], parts[1600] = np.inf, 1
    with pytest.raises(ValueError, match=r"cloud 1500 \(1500\) has NaN or infinite"):
        make(points=points, part_labels=None, **many)
    with pytest.raises(ValueError, match=r"cloud 1600 \(1600\) of class 'a' has part label 1"):
        make(points=np.zeros_like(points), part_labels=parts, **many)


def test_six_columns_are_xyz_and_normals():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(3, 50, 3))
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    normals[0, :5] = 0  # as in some files
    points = np.concatenate([rng.normal(size=(3, 50, 3)), normals], axis=2).astype(np.float32)
    some = {"labels": np.zeros(3, np.int64), "classes": ("a",), "names": ("x", "y", "z")}
    assert PointClouds(points=points, **some).points.shape == (3, 50, 6)
    assert len(PointClouds(points=points[:0], **{**some, "labels": np.zeros(0, np.int64), "names": ()})) == 0
    points[..., 3:] = rng.uniform(size=(3, 50, 3))
    with pytest.raises(
        ValueError, match=r"last three of six columns, .* not unit vectors \(colours\?\); pass xyz"
    ):
        PointClouds(points=points, **some)
