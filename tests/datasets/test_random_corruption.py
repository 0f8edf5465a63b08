"""Corruptions drawn for training: each comes up, as often as asked, and is itself."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from places import ROOT

from bixt3d.datasets.corruptions import CORRUPTIONS
from bixt3d.datasets.random_corruption import RandomCorruption
from bixt3d.training.assembly import build_augment

POINTS = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_every_corruption_and_severity_comes_up(monkeypatch):
    seen = Counter()
    for name, made in CORRUPTIONS.items():

        def watched(severity, name=name, made=made):
            seen[name, severity] += 1
            return made(severity)

        monkeypatch.setitem(CORRUPTIONS, name, watched)
    transform = RandomCorruption(probability=1)
    for seed in range(900):
        transform(POINTS, generator=seeded(seed))
    assert len(seen) == 45
    assert min(seen.values()) >= 5  # 20 expected, 3.4 standard deviations below
    assert max(seen.values()) <= 40


@pytest.mark.parametrize(("probability", "low", "high"), [(0, 0, 0), (0.5, 110, 190), (1, 300, 300)])
def test_as_often_as_asked(probability, low, high):
    transform = RandomCorruption(["jitter"], probability=probability)
    changed = sum(not torch.equal(transform(POINTS, generator=seeded(s)), POINTS) for s in range(300))
    assert low <= changed <= high


def test_the_same_seed_gives_the_same_clouds():
    transform = RandomCorruption(probability=1)
    for seed in range(20):
        assert torch.equal(
            transform(POINTS, generator=seeded(seed)), transform(POINTS, generator=seeded(seed))
        )


def test_what_comes_out_is_the_corruption():
    out = RandomCorruption(["global_drop"], severities=[5], probability=1)(POINTS, generator=seeded(1))
    assert out.shape == (2, 25, 3), "severity 5 drops three quarters"
    for cloud, before in zip(out, POINTS, strict=True):
        assert {tuple(p) for p in cloud.tolist()} <= {tuple(p) for p in before.tolist()}


def test_clouds_left_with_too_few_points_repeat_them_with_their_labels():
    labels = torch.arange(200).view(2, 100)
    transform = RandomCorruption(["global_drop"], severities=[5], probability=1, least=60)
    out, got = transform(POINTS, labels, generator=seeded(1))
    assert out.shape == (2, 60, 3)
    assert torch.equal(out[:, 25:50], out[:, :25])
    assert torch.equal(got[:, 25:50], got[:, :25])
    assert torch.equal(out, POINTS.flatten(0, 1)[got])


@pytest.mark.parametrize(("min_points", "left"), [(1, 25), (40, 40)])
def test_the_shipped_option_repeats_points_only_where_the_model_needs_them(compose, min_points, left):
    config = compose(ROOT / "cfgs" / "quickstart.yaml", "augment=scale_shift_corrupt")
    worst = config["augment"]["transforms"][0]
    worst |= {"corruptions": ["global_drop"], "severities": [5], "probability": 1.0}
    augment = build_augment(config, SimpleNamespace(min_points=min_points))
    assert augment(POINTS, generator=seeded(1)).shape == (2, left, 3), "a quarter of 100 points is left"


def test_an_augmentation_of_ones_own_is_left_alone():
    augment = build_augment({"augment": {"_target_": "torch.nn.Identity"}}, SimpleNamespace(min_points=40))
    assert isinstance(augment, torch.nn.Identity)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"corruptions": ["rain"]}, "corruptions: expected some of jitter, .* got 'rain'"),
        ({"corruptions": []}, "corruptions: expected some of .* got none"),
        ({"severities": [0, 3]}, r"severities: expected some of 1 to 5, got \[0, 3\]"),
        ({"severities": []}, "severities: expected some of 1 to 5"),
        ({"probability": 1.5}, "probability: expected a number from 0 to 1, got 1.5"),
    ],
)
def test_mistakes_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        RandomCorruption(**options)
