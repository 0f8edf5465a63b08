"""Stray points: found as scipy finds them, and gone before a model sees the cloud."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from test_predictor import HeightSegmenter, RadiusClassifier, segmenter
from torch import nn

from bixt3d.datasets.corruptions import CORRUPTIONS, corrupt_each
from bixt3d.evaluation.evaluate import evaluate_checkpoint, evaluate_robustness, rebuild
from bixt3d.evaluation.robustness import RobustnessPlan
from bixt3d.inference.predictor import Predictor
from bixt3d.inference.strays import WithoutStrays, find_strays

CPU = "train.accelerator=cpu"


def sphere(count, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize(("num_neighbors", "factor"), [(4, 3.0), (1, 1.5), (8, 2.0)])
def test_as_scipy_finds_them(num_neighbors, factor):
    clouds = [np.random.default_rng(seed).standard_cauchy(size=(301, 3)).clip(-50, 50) for seed in (0, 1)]
    found = find_strays(torch.tensor(np.stack(clouds)), num_neighbors=num_neighbors, factor=factor)
    for cloud, strays in zip(clouds, found, strict=True):
        distance = cKDTree(cloud).query(cloud, k=num_neighbors + 1)[0][:, 1:].mean(axis=1)
        assert 10 < strays.sum() < 150
        assert np.array_equal(strays.numpy(), distance > factor * np.median(distance))


def test_clutter_is_found_and_a_clean_surface_left_alone():
    clean = torch.tensor(sphere(3000), dtype=torch.float32)[None]
    assert not find_strays(clean).any()
    cluttered = corrupt_each(CORRUPTIONS["clutter"](5), clean, [0], seed=0)
    strays = find_strays(cluttered)[0]
    assert not strays[:3000].any()
    far = cluttered[0, 3000:].norm(dim=1) < 0.75  # clutter near the surface looks like it
    assert far.sum() > 30
    assert strays[3000:][far].float().mean() > 0.9  # some lie close to each other


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_or_repeated_points_are_no_strays(count):
    few = torch.tensor(sphere(count))[None]
    assert not find_strays(few).any()
    assert not find_strays(torch.cat([few.repeat(1, 20, 1), few + 0.1], dim=1)).any()


@pytest.mark.parametrize("options", [{"num_neighbors": 0}, {"factor": 1.0}, {"factor": float("nan")}])
def test_numbers_out_of_range(options):
    with pytest.raises(ValueError, match="num_neighbors, factor: expected at least 1 and above 1"):
        find_strays(torch.zeros(1, 4, 3), **options)


class Largest(nn.Module):
    """Sees the same in a cloud and in one that repeats its points."""

    min_points = 7

    def forward(self, points):
        self.seen = points
        return points.amax(dim=1)


def test_a_model_sees_what_is_left():
    points = torch.randn(3, 60, 6, generator=torch.Generator().manual_seed(0))
    points[1, 5, :3] += 40
    points[2, [0, 8, 59], :3] += torch.tensor([[90.0, 0, 0], [0, 90, 0], [0, 0, 90]])
    model = WithoutStrays(Largest())
    out = model(points)
    assert model.min_points == 7
    assert model.model.seen.shape == points.shape
    left = [cloud[~strays] for cloud, strays in zip(points, find_strays(points[..., :3]), strict=True)]
    assert len(left[1]) <= 59
    assert len(left[2]) <= 57
    for cloud, row, seen in zip(left, out, model.model.seen, strict=True):
        assert torch.equal(row, cloud.amax(dim=0))
        assert torch.equal(seen[: len(cloud)], cloud)  # in their order, then again from the first
        assert torch.equal(seen[len(cloud) :], cloud[: 60 - len(cloud)])


def test_strays_neither_squash_a_cloud_nor_stay_without_a_label():
    clean = sphere(300)
    points = np.concatenate([clean, [[0, 500.0, 0], [0, -500.0, 0]]])
    wanted = segmenter()(clean)
    found = segmenter(drop_strays=True)(points)
    assert np.array_equal(found.labels[:300], wanted.labels)
    assert found.labels[300:].tolist() == [wanted.labels.max(), wanted.labels.min()]  # of the nearest left
    assert found.probabilities.shape == (302, 5)
    squashed = segmenter()(points)
    assert not np.array_equal(squashed.labels[:300], wanted.labels)
    assert np.array_equal(segmenter(drop_strays=True)(clean).probabilities, wanted.probabilities)


def test_normals_of_strays_go_with_them():
    model = HeightSegmenter(in_channels=6)
    points = np.concatenate([sphere(50), [[90.0, 0, 0]]])
    normals = np.concatenate([np.tile([0.0, 0.0, 1.0], (50, 1)), [[1.0, 0.0, 0.0]]])
    segmenter(model, drop_strays=True)(points, normals=normals)
    assert all((seen[..., 3:] == torch.tensor([0.0, 0.0, 1.0])).all() for seen in model.seen)


def test_a_classifier_gets_as_many_points_as_ever():
    model = RadiusClassifier()
    predictor = Predictor(model, classes=("a", "b", "c"), num_points=64, drop_strays=True)
    predictor(np.concatenate([[[0, 0, 1e6]], sphere(400)]))
    assert model.seen[0].shape == (1, 64, 3)
    assert model.seen[0].norm(dim=-1).min() > 0.5


def test_a_checkpoint_is_measured_without_strays(tiny_run, one_thread, call, tmp_path, monkeypatch):
    best = tiny_run / "best.pt"
    labels = rebuild(best, [CPU]).dataset.load("test").labels
    one_class_alone = [
        pytest.approx(100 * (labels == label).mean(), abs=1e-3) for label in set(labels.tolist())
    ]
    clean = evaluate_checkpoint(best, [CPU], drop_strays=True, out=tmp_path).summary()
    assert (
        evaluate_checkpoint(best, [CPU], drop_strays=False).summary()
        == evaluate_checkpoint(best, [CPU]).summary()
    )
    status, out, err = call("evaluate.py", best, "corruption=clutter", "severity=5", "drop_strays=true", CPU)
    assert (status, err) == (0, "")
    assert f"the first 32 points, strays dropped): clean OA {clean['OA']:.2f} %" in out
    monkeypatch.setattr(
        "bixt3d.inference.strays.replace_strays", lambda points: points * 0
    )  # the model sees what this returns
    for result in (
        evaluate_checkpoint(best, [CPU], drop_strays=True),
        evaluate_robustness(best, RobustnessPlan(("clutter",), (5,)), [CPU], drop_strays=True),
    ):
        accuracy = result.summary()["OA"] if not hasattr(result, "rows") else result.rows[0]["OA"]
        assert accuracy in one_class_alone
