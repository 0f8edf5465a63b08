"""Corruptions do what their level says, and to each cloud the same in whatever company."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from bixt3d.datasets import CloudLoader, PointClouds, Shapes
from bixt3d.datasets.corrupted import CorruptedLoader
from bixt3d.datasets.corruption_base import SEVERITIES, Corruption
from bixt3d.datasets.corruptions import CORRUPTIONS, corrupt_each
from bixt3d.datasets.transforms import Compose, Shuffle, Transform

ALL = [pytest.param(make, id=name) for name, make in CORRUPTIONS.items()]
DROPS = ("local_drop", "global_drop", "density", "occlusion")
COUNT = 200


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def shapes():
    return Shapes(num_test=24, num_points=COUNT, normals=True).load("test")


@pytest.fixture(scope="module")
def points(shapes):
    return torch.from_numpy(shapes.points)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_each_cloud_is_its_own_affair(make, severity, points):
    """Neither the batch, nor the order, nor torch's global generator has a say; index and seed have."""
    corruption = make(severity)
    before = points.clone()
    together = corrupt_each(corruption, points, range(24), seed=3)
    torch.manual_seed(5)
    pieces = [
        corrupt_each(corruption, points[i : i + 7], range(i, min(i + 7, 24)), 3) for i in (0, 7, 14, 21)
    ]
    assert torch.equal(together, torch.cat(pieces))
    backwards = corrupt_each(corruption, points.flip(0), range(23, -1, -1), seed=3)
    assert torch.equal(together, backwards.flip(0))
    assert torch.equal(points, before)
    assert not torch.equal(together, corrupt_each(corruption, points, range(24), seed=4))
    assert not torch.equal(together, corrupt_each(corruption, points, range(1, 25), seed=3))


def test_severities_of_the_same_cloud_are_draws_of_their_own(points):
    mild, strong = (
        (corrupt_each(CORRUPTIONS["jitter"](s), points[:1], [0], 0) - points[:1])[..., :3].flatten()
        for s in (1, 5)
    )
    assert abs(float(torch.corrcoef(torch.stack([mild, strong]))[0, 1])) < 0.2, (
        "else one is a multiple of the other"
    )


def test_corruptions_of_the_same_cloud_are_draws_of_their_own(points):
    class Other(CORRUPTIONS["jitter"]):
        pass

    one, two = (corrupt_each(make(3), points[:1], [0], 0) for make in (CORRUPTIONS["jitter"], Other))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("channels", [3, 6])
def test_an_ordinary_transform(make, channels, shapes):
    """Called like any other, also in a Compose, with labels in step and unit normals."""
    assert isinstance(make(), Transform)
    points = torch.from_numpy(shapes.points)[..., :channels]
    labels = torch.arange(COUNT).expand(24, -1).contiguous()
    for transform in (make(2), Compose([make(2)])):
        out, parts = transform(points, labels, generator=seeded())
        assert torch.equal(out, transform(points, generator=seeded()))
        assert out.dtype == points.dtype
        assert parts.shape == out.shape[:2]
        kept = parts >= 0
        assert kept.sum(dim=1).unique().numel() == 1
        if make in (CORRUPTIONS[name] for name in (*DROPS, "clutter", "local_clutter")):
            for cloud in (0, 23):
                rows = parts[cloud][kept[cloud]]
                assert torch.equal(points[cloud, rows], out[cloud][kept[cloud]])
                assert (rows.diff() > 0).all(), "those that are kept keep their order, none twice"
        if channels == 6:
            assert torch.allclose(out[..., 3:].norm(dim=-1), torch.ones(()), atol=1e-5)
    half = make(2)(points.half(), generator=seeded())
    assert half.dtype == torch.float16
    assert half.shape == out.shape
    Compose([make(), Shuffle()])(points[0], generator=seeded())


@pytest.mark.parametrize("name", DROPS)
def test_the_level_is_the_share_that_is_dropped(name, points):
    for severity in SEVERITIES:
        corruption = CORRUPTIONS[name](severity)
        share = 0.5 if name == "density" else corruption.level
        assert corruption(points, generator=seeded()).shape[1] == COUNT - round(share * COUNT)
    assert CORRUPTIONS[name](5)(points[0, :1], generator=seeded()).shape == (1, 6), "one point is left"


def test_noise_has_the_standard_deviation_of_its_level(points):
    for severity, std in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.04, 0.05), strict=True):
        moved = CORRUPTIONS["jitter"](severity)(points, generator=seeded()) - points
        assert float(moved[..., :3].std()) == pytest.approx(std, rel=0.02)
        assert not moved[..., 3:].any()


def test_a_rotation_keeps_distances_and_stays_below_its_angle(points):
    for severity, limit in zip(SEVERITIES, (6, 12, 18, 24, 30), strict=True):
        corruption = CORRUPTIONS["rotation"](severity)
        turned = corruption(points, generator=seeded())
        assert torch.allclose(
            torch.cdist(turned[..., :3], turned[..., :3]),
            torch.cdist(points[..., :3], points[..., :3]),
            atol=2e-3,
        )
        axes = corruption(torch.eye(3).expand(400, 3, 3).contiguous(), generator=seeded())
        cosine = (axes.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2
        angles = torch.rad2deg(cosine.clamp(-1, 1).acos())
        assert limit * 0.97 < float(angles.max()) <= limit + 0.05
        handed = torch.linalg.det(axes)
        assert torch.allclose(handed, torch.ones(400), atol=1e-5)


def test_scale_stretches_the_axes_independently(points):
    for severity, level in zip(SEVERITIES, (1.6, 1.7, 1.8, 1.9, 2.0), strict=True):
        factor = CORRUPTIONS["scale"](severity)(torch.ones(2000, 1, 3), generator=seeded())[:, 0]
        assert 1 / level <= float(factor.min()) < 1 / level + 0.01
        assert level - 0.01 < float(factor.max()) <= level
        assert abs(float(torch.corrcoef(factor.T)[0, 1])) < 0.1
    # a plane x + y = 0 with its normal stays one
    plane = torch.tensor(
        [[1.0, -1.0, 0.3, 0.5**0.5, 0.5**0.5, 0.0], [-2.0, 2.0, 0.0, 0.5**0.5, 0.5**0.5, 0.0]]
    )
    out = CORRUPTIONS["scale"](5)(plane, generator=seeded())
    assert abs(float((out[0, :3] - out[1, :3]) @ out[0, 3:])) < 1e-5


def test_a_local_drop_leaves_holes_where_a_global_drop_leaves_none():
    """Of a fine grid in a square, the largest empty disc is as large as a third of what was dropped."""
    side = torch.linspace(-1, 1, 30)
    grid = torch.cartesian_prod(side, side, torch.zeros(1))

    def widest_gap(name):
        severity = 5 if name == "local_drop" else 3  # both drop half
        left = CORRUPTIONS[name](severity)(grid, generator=seeded(1))
        assert len(left) == 450
        return float(torch.cdist(grid, left).amin(dim=1).max())

    assert widest_gap("local_drop") > 0.35  # a patch of 150 of 900 points has about this radius
    assert widest_gap("global_drop") < 0.35


def test_a_local_drop_takes_the_nearest():
    """On a line, around whatever is first of what is left, from its beginning to the middle."""
    line = torch.arange(100.0)[None, :, None] * torch.tensor([1.0, 0.0, 0.0])
    _, left = CORRUPTIONS["local_drop"](5)._corrupt(line, torch.arange(100)[None], torch.zeros(1, 3))
    assert left[0].tolist() == list(range(50, 100))


def test_clutter_is_uniform_in_the_ball():
    empty = torch.zeros(400, 100, 3)
    added = CORRUPTIONS["clutter"](5)(empty, generator=seeded())[:, 100:]
    assert added.shape == (400, 5, 3)
    radius = added.norm(dim=-1).flatten().numpy()
    assert kstest(radius**3, "uniform").pvalue > 0.01
    along = (added / added.norm(dim=-1, keepdim=True)).flatten(0, 1)
    for axis in along.T.numpy():  # of a uniform direction every coordinate is uniform
        assert kstest((axis + 1) / 2, "uniform").pvalue > 0.01


def test_local_clutter_lies_in_blobs_at_the_cloud(points):
    out = CORRUPTIONS["local_clutter"](5)(points, generator=seeded())
    added = out[:, COUNT:, :3]
    assert added.shape[1] == COUNT // 2
    for cloud in range(4):
        blobs = [added[cloud, i::4] for i in range(4)]
        for blob in blobs:
            assert float(blob.std(dim=0).mean()) == pytest.approx(0.1, rel=0.4)
            center = blob.mean(dim=0)
            assert float((points[cloud, :, :3] - center).norm(dim=1).min()) < 0.12
    centers = torch.stack([added[:, i::4].mean(dim=1) for i in range(4)], dim=1)
    assert float(torch.cdist(centers, centers).sum(dim=(1, 2)).min()) > 1, "four blobs, not one"


def test_density_falls_along_one_direction():
    """Of points that are uniform in a ball, the mean of those left moves to one side, the more the steeper."""
    ball = CORRUPTIONS["clutter"](5)(torch.zeros(1, 40000, 3), generator=seeded())[:, 40000:]
    clouds = ball.expand(30, -1, -1).contiguous()
    shifts = [
        float(CORRUPTIONS["density"](s)(clouds, generator=seeded(s)).mean(dim=1).norm(dim=1).mean())
        for s in SEVERITIES
    ]
    assert shifts == sorted(shifts)
    assert shifts[0] > 0.08
    assert shifts[-1] < 3 / 8 + 0.01, "no more than if the ball were cut in half"


@pytest.mark.parametrize(("axis", "sign"), [(0, 1), (1, -1), (2, 1), (2, -1)])
def test_occlusion_drops_what_lies_behind(axis, sign):
    """Of two parallel walls, looked at from the front, only points of the farther one go."""
    side = torch.linspace(-0.5, 0.5, 24)
    walls = torch.cat([torch.cartesian_prod(side, side, torch.tensor([z])) for z in (-0.25, 0.25)])
    labels = torch.arange(2).repeat_interleave(576)[None]
    turn = [2, 2, 2]
    turn[(axis + 1) % 3], turn[(axis + 2) % 3] = 0, 1  # the walls at right angles to the axis
    view, across = torch.zeros(3), torch.zeros(3)
    view[axis], across[(axis + 1) % 3] = sign, 1
    _, left = CORRUPTIONS["occlusion"](3)._corrupt(
        walls[None, :, turn], labels, torch.stack([view, across])[None]
    )
    near, far = (1, 0) if sign > 0 else (0, 1)
    assert int((left == near).sum()) == 576
    assert int((left == far).sum()) == 1152 - round(0.45 * 1152) - 576


def test_occlusion_hides_nothing_beside_what_is_in_front():
    """Of a wall half of which stands behind a nearer one, points of that half alone are dropped."""
    side, along = torch.linspace(0.1, 0.8, 20), torch.linspace(-0.8, 0.8, 20)
    far = torch.cartesian_prod(torch.cat([-side, side]), along, torch.tensor([-0.25]))
    near = torch.cartesian_prod(-side, along, torch.tensor([0.25]))
    labels = torch.cat([(far[:, 0] < 0).long(), torch.full((400,), 2)])[None]
    view = torch.tensor([[[0.0, 0, 1], [1, 0, 0]]])
    _, left = CORRUPTIONS["occlusion"](2)._corrupt(torch.cat([far, near])[None], labels, view)
    assert left[0].bincount().tolist() == [400, 400 - round(0.3 * 1200), 400]


def test_occlusion_looks_from_any_side():
    """A hollow sphere loses its farther half: over many views the points left have no side in common."""
    sphere = torch.nn.functional.normalize(torch.randn(500, 3, generator=seeded()), dim=1)
    left = CORRUPTIONS["occlusion"](3)(sphere.expand(200, -1, -1).contiguous(), generator=seeded())
    sides = left.mean(dim=1)
    assert float(sides.norm(dim=1).min()) > 0.2
    assert float(sides.mean(dim=0).norm()) < 0.1


@pytest.mark.parametrize("severity", [0, 6, "3"])
def test_there_are_five_severities(severity):
    with pytest.raises(ValueError, match="severity: expected a whole number from 1 to 5"):
        CORRUPTIONS["jitter"](severity)


def test_severity_means_a_level():
    assert all(len(make.levels) == len(SEVERITIES) for make in CORRUPTIONS.values())
    assert all(list(make.levels) == sorted(make.levels) for make in CORRUPTIONS.values())
    with pytest.raises(NotImplementedError):
        Corruption()(torch.zeros(4, 3))


def test_the_loader_corrupts_by_index_on_every_rank_and_fills_up(shapes):
    def load(least=1, **options):
        loader = CloudLoader(shapes, num_points=100, **{"batch_size": 5} | options)
        return CorruptedLoader(loader, CORRUPTIONS["global_drop"](5), seed=1, least=least)

    whole = load()
    batches = list(whole.epoch(0))
    assert len(batches) == len(whole) == 5
    assert whole.points_left == 25
    points = torch.cat([b.points for b in batches])
    assert torch.equal(torch.cat([b.labels for b in batches]), torch.from_numpy(shapes.labels))
    expected = corrupt_each(whole.corruption, torch.from_numpy(shapes.points[:, :100]), range(24), 1)
    assert torch.equal(points, expected)
    assert all(b.part_labels is None for b in batches), "those of the clean clouds no longer fit"
    for rank in (0, 1):
        for batch in load(batch_size=4, rank=rank, world_size=2).epoch(0):
            assert torch.equal(batch.points, points[batch.index])
    (late,) = load().epoch(7, start=4)
    assert torch.equal(late.points, batches[4].points)
    filled = next(load(least=60).epoch(0)).points
    assert torch.equal(filled, points[:5].repeat(1, 3, 1)[:, :60])


def test_the_loader_says_what_it_cannot_use():
    clouds = PointClouds(
        points=np.zeros((3, 4, 3), np.float32),
        labels=np.zeros(3, np.int64),
        classes=("a",),
        names=("x", "y", "z"),
    )
    with pytest.raises(ValueError, match="loader: expected one that does not augment"):
        CorruptedLoader(
            CloudLoader(clouds, batch_size=2, num_points=4, transform=Shuffle()), CORRUPTIONS["jitter"]()
        )
    with pytest.raises(ValueError, match="seed: expected 0 or more, got -1"):
        CorruptedLoader(CloudLoader(clouds, batch_size=2, num_points=4), CORRUPTIONS["jitter"](), seed=-1)


@pytest.mark.gpu
@pytest.mark.parametrize("make", ALL)
def test_a_device_corrupts_as_the_cpu_does(make, points):
    """The draw is the same; rounding may order a few points otherwise where a share is kept."""
    expected = corrupt_each(make(3), points, range(24), 0)
    found = corrupt_each(make(3), points.cuda(), range(24), 0).cpu()
    assert found.shape == expected.shape
    nearest = torch.cdist(found[..., :3], expected[..., :3]).amin(dim=2)
    assert float((nearest < 1e-4).float().mean()) > 0.99
