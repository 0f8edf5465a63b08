import numpy as np
import pytest
import torch

from bixt3d.prediction import as_cloud

POINTS = np.random.default_rng(0).normal(size=(5, 3))
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, torch.from_numpy])
def test_points_and_normals_come_as_array_list_or_tensor(form):
    cloud = as_cloud(form(POINTS), form(NORMALS))
    assert np.array_equal(cloud.points, POINTS)
    assert np.array_equal(cloud.normals, NORMALS)
    assert np.array_equal(as_cloud(form(np.hstack([POINTS, NORMALS])), None).normals, NORMALS)


@pytest.mark.parametrize(
    ("normals", "error", "words"),
    [
        ([["a", "b", "c"]] * 5, TypeError, "normals: expected real numbers"),
        (NORMALS[:4].tolist(), ValueError, r"expected normals of shape \(5, 3\), got \(4, 3\)"),
        ([[0, 0, float("nan")]] * 5, ValueError, "normals: expected finite numbers"),
    ],
)
def test_normals_that_are_none_are_refused(normals, error, words):
    with pytest.raises(error, match=words):
        as_cloud(POINTS, normals)


@pytest.mark.parametrize("several", [np.zeros((2, 9, 3)), [np.zeros((9, 3)), np.ones((8, 3))]])
def test_several_clouds_are_told_where_to_go(several):
    with pytest.raises(ValueError, match=r"^points: expected .*; several clouds go through predictor\.run"):
        as_cloud(several, None)
