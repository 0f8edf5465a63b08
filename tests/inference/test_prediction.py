import numpy as np
import pytest
import torch

from bixt3d.inference.prediction import as_cloud

POINTS = np.random.default_rng(0).normal(size=(5, 3))
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, torch.from_numpy])
def test_points_and_normals_come_as_array_list_or_tensor(form):
    cloud = as_cloud(form(POINTS), form(NORMALS))
    assert np.array_equal(cloud.points, POINTS)
    np.testing.assert_allclose(cloud.normals, NORMALS, rtol=1e-15)
    both = as_cloud(form(np.hstack([POINTS, NORMALS])), None)
    np.testing.assert_allclose(both.normals, NORMALS, rtol=1e-15)


@pytest.mark.parametrize(
    ("normals", "error", "words"),
    [
        ([["a", "b", "c"]] * 5, TypeError, "normals: expected real numbers"),
        (NORMALS[:4].tolist(), ValueError, r"expected normals of shape \(5, 3\), got \(4, 3\)"),
        (NORMALS[0].tolist(), ValueError, r"expected normals of shape \(5, 3\), got \(3,\)"),
    ],
)
def test_normals_that_are_none_are_refused(normals, error, words):
    with pytest.raises(error, match=words):
        as_cloud(POINTS, normals)


@pytest.mark.parametrize("length", [1e-200, 0.1, 10, 1e200])
def test_normals_are_made_of_unit_length_as_those_of_files_are(length):
    for cloud in (
        as_cloud(POINTS, length * NORMALS),
        as_cloud(np.hstack([POINTS, length * NORMALS]), None),
        as_cloud(as_cloud(POINTS, None), length * NORMALS),
    ):
        np.testing.assert_allclose(cloud.normals, NORMALS, rtol=1e-14)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_where_one_normal_has_no_direction_there_are_none_as_in_files(bad):
    normals = NORMALS.copy()
    normals[2] = bad
    assert as_cloud(POINTS, normals).normals is None
    assert as_cloud(np.hstack([POINTS, normals]), None).normals is None


def test_normals_come_once():
    for points in (np.hstack([POINTS, NORMALS]), as_cloud(POINTS, NORMALS)):
        with pytest.raises(ValueError, match=r"^normals: the points already have normals; leave out one"):
            as_cloud(points, NORMALS)


@pytest.mark.parametrize("several", [np.zeros((2, 9, 3)), [np.zeros((9, 3)), np.ones((8, 3))]])
def test_several_clouds_are_told_where_to_go(several):
    with pytest.raises(ValueError, match=r"^points: expected .*; several clouds go through predictor\.run"):
        as_cloud(several, None)
