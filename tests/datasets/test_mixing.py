"""Mixed clouds and their targets agree point by point; bent clouds are the formula of the paper."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from bixt3d.datasets import CloudLoader, PointClouds, Shapes
from bixt3d.datasets.mixing import SubsetMix
from bixt3d.datasets.transforms import Compose, RandomScale, Shuffle
from bixt3d.datasets.wolf import PointWOLF
from bixt3d.tasks import Classification, PartSegmentation

CLASSES = ("a", "b", "c")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(size=6, count=50, channels=3, seed=0):
    """Clouds whose points say who they are: the part label is cloud * count + place."""
    points = torch.randn(size, count, channels, generator=seeded(seed))
    return points, torch.arange(size * count).view(size, count), torch.arange(size) % 3


@pytest.mark.parametrize("channels", [3, 6])
def test_a_mixed_cloud_is_what_its_target_says(channels):
    points, parts, labels = batch(channels=channels)
    before = points.clone()
    mixed, who, target = SubsetMix(1.0, 1.0).mix(points, parts, labels, 3, seeded(1))
    assert torch.equal(points, before)
    assert target.dtype == torch.float32
    torch.testing.assert_close(target.sum(dim=1), torch.ones(6))
    shares = []
    for cloud in range(6):
        neighbour = (cloud - 1) % 6
        owner = who[cloud] // 50
        assert set(owner.tolist()) <= {cloud, neighbour}
        k = int((owner == neighbour).sum())
        shares.append(k)
        expected = torch.zeros(3)
        expected[labels[cloud]] += 1 - k / 50
        expected[labels[neighbour]] += k / 50
        torch.testing.assert_close(target[cloud], expected)
        assert who[cloud].unique().numel() == 50, "no point occurs twice"
        own = owner == cloud
        place = torch.arange(50)[own]
        assert torch.equal(mixed[cloud, own], points[cloud, place]), "own points stay where they were"
        brought = who[cloud, ~own] % 50
        if k:
            moved = mixed[cloud, ~own, :3] - points[neighbour, brought, :3]
            torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-5, rtol=1e-5)
            assert torch.equal(mixed[cloud, ~own, 3:], points[neighbour, brought, 3:])
            gone = points[cloud, ~own, :3]
            apart = (mixed[cloud, ~own, None, :3] - gone).norm(dim=-1)
            assert float(apart.min()) < 1e-5, "the two centres coincide"
            for origin, taken in ((points[neighbour], brought), (points[cloud], torch.arange(50)[~own])):
                # what came and what went are each the k nearest of one of their own points
                distance = torch.cdist(origin[taken, :3], origin[:, :3])
                nearest = [set(d.argsort()[:k].tolist()) for d in distance]
                assert set(taken.tolist()) in nearest
    assert len(set(shares)) > 2


def test_probability_and_largest_share_hold():
    points, _, labels = batch(size=3000, count=10)
    _, none, target = SubsetMix(0.25, 0.6).mix(points, None, labels, 3, seeded())
    assert none is None
    share = 1 - target.amax(dim=1)
    # the clouds mixed with at least one point: a quarter, and of it those whose share is a tenth or more
    assert float((share > 0).float().mean()) == pytest.approx(0.25 * (1 - 0.1 / 0.6), abs=0.03)
    untouched, _, target = SubsetMix(0.0, 1.0).mix(points, None, labels, 3, seeded())
    assert torch.equal(untouched, points)
    assert torch.equal(target, F.one_hot(labels, 3).float())
    most = SubsetMix(1.0, 0.3).mix(points, None, torch.zeros_like(labels), 2, seeded())
    torch.testing.assert_close(most[2], torch.tensor([[1.0, 0.0]]).expand(3000, 2))


def test_the_loss_is_the_mean_of_both_losses_by_share():
    task = Classification(CLASSES, label_smoothing=0.2)
    logits = torch.randn(2, 3, generator=seeded())
    a, b = torch.tensor([0, 2]), torch.tensor([1, 1])
    share = torch.tensor([0.3, 0.0])
    target = F.one_hot(a, 3) * (1 - share)[:, None] + F.one_hot(b, 3) * share[:, None]
    each = [F.cross_entropy(logits, label, label_smoothing=0.2, reduction="none") for label in (a, b)]
    torch.testing.assert_close(task.loss(logits, target), ((1 - share) * each[0] + share * each[1]).mean())


@pytest.fixture(scope="module")
def clouds():
    return Shapes(num_train=24, num_points=32).load("train")


def test_a_loader_mixes_the_same_each_time(clouds):
    augment = Compose([RandomScale(), Shuffle(), SubsetMix(1.0)])
    assert augment.mixes

    def batches(start=0):
        loader = CloudLoader(
            clouds, batch_size=6, num_points=32, transform=augment, shuffle=True, drop_last=True, seed=4
        )
        return list(loader.epoch(1, start))

    whole, again = batches(), batches(2)
    for left, right in zip(whole[2:], again, strict=True):
        assert torch.equal(left.points, right.points)
        assert torch.equal(left.targets, right.targets)
        assert torch.equal(left.part_labels, right.part_labels)
    assert all(b.targets.shape == (6, 12) for b in whole)
    assert any((b.targets.amax(dim=1) < 1).any() for b in whole)
    plain = next(CloudLoader(clouds, batch_size=6, num_points=32, transform=Compose([])).epoch(0))
    assert plain.targets is None


def test_tasks_take_what_they_can(clouds):
    loader = CloudLoader(clouds, batch_size=6, num_points=32, transform=SubsetMix())
    one = next(loader.epoch(0))
    logits, target = Classification(clouds.classes).predict(lambda points: points[:, 0, :], one)
    assert target is one.targets
    assert len(logits) == 6
    with pytest.raises(ValueError, match="augment: mixing clouds is for classification"):
        PartSegmentation(clouds.classes, clouds.parts).predict(lambda *_: None, one)


def test_mixing_comes_last_and_alone_does_nothing():
    with pytest.raises(ValueError, match="transforms: expected SubsetMix last"):
        Compose([SubsetMix(), Shuffle()])
    points, parts, _ = batch()
    same, labels = Compose([SubsetMix(1.0)])(points, parts, generator=seeded())
    assert torch.equal(same, points)
    assert torch.equal(labels, parts)
    for wrong in ({"probability": 1.1}, {"max_share": -0.1}):
        with pytest.raises(ValueError, match="expected a number from 0 to 1, got"):
            SubsetMix(**wrong)


def test_a_bent_cloud_is_the_formula(monkeypatch):
    """The same with numpy and scipy, point by point, from the numbers that were drawn."""
    drawn = []
    rand = torch.rand

    def noted(*arguments, **options):
        drawn.append(rand(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "rand", noted)
    cloud = torch.randn(2, 30, 3, generator=seeded(), dtype=torch.float64)
    bent = PointWOLF(anchors=3, bandwidth=0.4, max_degrees=25, max_scale=2, max_shift=0.3)(
        cloud, generator=seeded(2)
    ).numpy()
    start, angle, scale, shift, axes = (d.numpy() for d in drawn)
    for b, points in enumerate(cloud.numpy()):
        anchors = [points[int(start[b, 0] * 30)]]
        for _ in range(2):
            anchors.append(points[np.min([((points - a) ** 2).sum(1) for a in anchors], axis=0).argmax()])
        total, weights = 0, 0
        for m, anchor in enumerate(anchors):
            turn = Rotation.from_euler("xyz", 25 * (2 * angle[b, m] - 1), degrees=True).as_matrix()
            offset = points - anchor
            moved = (offset * (1 + scale[b, m])) @ turn.T + anchor + 0.3 * (2 * shift[b, m] - 1)
            code = 1 + int(7 * axes[b, m, 0, 0])
            mask = np.array([code & 1, code >> 1 & 1, code >> 2 & 1])
            assert mask.any()
            weight = np.exp(-((offset * mask) ** 2).sum(1, keepdims=True) / (2 * 0.4**2))
            total, weights = total + weight * moved, weights + weight
        expected = total / weights
        expected -= expected.mean(0)
        radius = np.linalg.norm(points - points.mean(0), axis=1).max()
        expected = expected / np.linalg.norm(expected, axis=1).max() * radius + points.mean(0)
        np.testing.assert_allclose(bent[b], expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bending_is_a_transform_like_any(dtype):
    points = torch.randn(5, 40, 3, generator=seeded()).to(dtype)
    labels = torch.arange(40).expand(5, -1)
    out, same = PointWOLF()(points, labels, generator=seeded(1))
    assert torch.equal(same, labels)
    assert (out.dtype, out.shape) == (dtype, points.shape)
    assert torch.equal(out, PointWOLF()(points, generator=seeded(1)))
    assert not torch.equal(out[0], PointWOLF()(points, generator=seeded(2))[0])
    single = PointWOLF()(points[:1], generator=seeded(3))[0]
    torch.testing.assert_close(single, PointWOLF()(points[0], generator=seeded(3)))
    still = PointWOLF(max_degrees=0, max_scale=1, max_shift=0)(points, generator=seeded())
    torch.testing.assert_close(still, points, atol=1e-2 if dtype == torch.float16 else 1e-5, rtol=1e-3)
    far = PointWOLF(bandwidth=0.01)(100 * torch.randn(2, 40, 3, generator=seeded()), generator=seeded())
    assert torch.isfinite(far).all(), "where every weight vanishes the nearest anchor has its way"
    same_place = PointWOLF()(torch.ones(1, 6, 3), generator=seeded())
    torch.testing.assert_close(same_place, torch.ones(1, 6, 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"anchors": 0}, "anchors: expected at least 1, got 0"),
        ({"bandwidth": 0}, r"bandwidth: expected at least 0\.01, got 0"),
        ({"max_scale": 0.5}, r"max_scale: expected at least 1, got 0\.5"),
        ({"max_shift": math.nan}, "max_shift: expected at least 0, got nan"),
    ],
)
def test_numbers_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        PointWOLF(**options)


def test_clouds_that_cannot_be_bent():
    with pytest.raises(ValueError, match="does not update normals"):
        PointWOLF()(torch.zeros(5, 6))
    with pytest.raises(ValueError, match="points: expected at least 4, the number of anchors, got 3"):
        PointWOLF()(torch.zeros(3, 3))


def test_clouds_without_part_labels_are_mixed_too():
    data = PointClouds(
        points=np.random.default_rng(0).standard_normal((4, 8, 3), dtype=np.float32),
        labels=np.array([0, 1, 2, 0]),
        classes=CLASSES,
        names=tuple("wxyz"),
    )
    one = next(CloudLoader(data, batch_size=4, num_points=8, transform=SubsetMix(1.0, 1.0)).epoch(0))
    assert one.part_labels is None
    assert one.targets.shape == (4, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("transform", [PointWOLF(), SubsetMix()], ids=repr)
def test_nothing_waits_for_the_device(transform):
    points, _, labels = (v.cuda() for v in batch())
    generator = torch.Generator("cuda").manual_seed(0)
    transform.mix(transform(points, generator=generator), None, labels, 3, generator)  # loads kernels
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        transform.mix(transform(points, generator=generator), None, labels, 3, generator)
    finally:
        torch.cuda.set_sync_debug_mode(before)
