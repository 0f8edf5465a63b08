import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from bixt3d.datasets.rotation import rotation_matrices
from bixt3d.datasets.transforms import (
    Compose,
    Jitter,
    PointDropout,
    RandomRotation,
    RandomScale,
    RandomShift,
    Resample,
    Shuffle,
    Transform,
    UnitSphere,
)

ALL = [
    UnitSphere(),
    RandomScale(),
    RandomScale(anisotropic=False),
    RandomShift(),
    Jitter(),
    RandomRotation(),
    RandomRotation("any"),
    RandomRotation("any", 10),
    PointDropout(),
    Shuffle(),
    Resample(7),
    Resample(50),
    Resample(7, random=False),
    Compose([RandomScale(), RandomShift(), Shuffle()]),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(batch=4, count=20, channels=6, dtype=torch.float32, seed=0):
    points = torch.randn(batch, count, 3, generator=seeded(seed), dtype=torch.float64)
    normals = torch.randn(batch, count, 3, generator=seeded(seed + 1), dtype=torch.float64)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    return torch.cat([points, normals], dim=-1)[..., :channels].to(dtype)


@pytest.mark.parametrize("transform", ALL, ids=repr)
@pytest.mark.parametrize("channels", [3, 6])
def test_shape_dtype_seed_and_untouched_input(transform, channels):
    points = cloud(channels=channels)
    labels = torch.arange(20).expand(4, -1).contiguous()
    before = points.clone()
    out, parts = transform(points, labels, generator=seeded())
    again = transform(points, generator=seeded())  # without part labels the draw is the same
    assert torch.equal(points, before)
    assert torch.equal(labels, torch.arange(20).expand(4, -1))
    assert torch.equal(out, again)
    assert out.dtype == points.dtype
    assert out.shape[0] == 4
    assert out.shape[2] == channels
    assert parts.shape == out.shape[:2]
    assert parts.dtype == torch.int64
    assert torch.equal(transform(points[:1], generator=seeded())[0], transform(points[0], generator=seeded()))
    if channels == 6:
        assert torch.allclose(out[..., 3:].norm(dim=-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize(
    "transform", [t for t in ALL if not isinstance(t, UnitSphere) and getattr(t, "random", True)], ids=repr
)
def test_each_cloud_gets_its_own_draw(transform):
    same = cloud(batch=1).expand(2, -1, -1)
    out = transform(same, generator=seeded())
    assert not torch.equal(out[0], out[1])
    assert not torch.equal(out, transform(same, generator=seeded(1)))


@pytest.mark.parametrize(
    "transform",
    [
        RandomScale(1, 1),
        RandomShift(0),
        Jitter(std=0),
        Jitter(clip=0),
        RandomRotation(max_degrees=0),
        PointDropout(0),
        Resample(20, random=False),
        Compose([]),
    ],
    ids=repr,
)
def test_neutral_settings_change_nothing(transform):
    points = cloud()
    assert torch.allclose(transform(points, generator=seeded()), points, atol=1e-7)


def test_unit_sphere():
    points = cloud() * 30 + 5
    out = UnitSphere()(points)
    assert torch.allclose(out[..., :3].mean(dim=1), torch.zeros(()), atol=1e-6)
    assert torch.allclose(out[..., :3].norm(dim=-1).amax(dim=1), torch.ones(()), atol=1e-6)
    assert torch.equal(out[..., 3:], points[..., 3:])
    assert torch.equal(UnitSphere()(torch.full((5, 3), 2.0)), torch.zeros(5, 3))


def test_scale_stays_in_bounds_and_normals_stay_normal():
    # two tangents and the normal of a plane through the origin, as points and as a normal
    u, v = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([-1.0, 0.3, 2.0])
    normal = torch.nn.functional.normalize(torch.linalg.cross(u, v), dim=0)
    points = torch.stack([torch.cat([u, normal]), torch.cat([v, normal])]).expand(500, -1, -1)
    out = RandomScale(0.5, 2)(points, generator=seeded())
    factor = out[..., :3] / points[..., :3]
    assert factor.min() >= 0.5
    assert factor.max() <= 2
    assert factor.min() < 0.51
    assert factor.max() > 1.99
    assert factor[:, 0].std(dim=1).min() > 0  # a factor for each axis
    assert (out[..., :3] * out[:, :1, 3:]).sum(dim=-1).abs().max() < 1e-5
    equal = RandomScale(0.5, 2, anisotropic=False)(points, generator=seeded())
    assert torch.equal(equal[..., 3:], points[..., 3:])
    assert torch.allclose((equal / points)[:, 0, 0], (equal / points)[:, 1, 2])


def test_shift_moves_a_cloud_as_one():
    points = cloud(batch=500)
    out = RandomShift(0.2)(points, generator=seeded())
    shift = (out - points)[..., :3]
    assert (shift - shift[:, :1]).abs().max() < 1e-6
    assert 0.19 < shift.max() <= 0.2 + 1e-6
    assert -0.19 > shift.min() >= -0.2 - 1e-6
    assert torch.equal(out[..., 3:], points[..., 3:])


def test_jitter_is_clipped_gaussian():
    points = cloud(batch=50, count=200)
    noise = (Jitter(0.01, 0.02)(points, generator=seeded()) - points)[..., :3]
    assert noise.abs().max() <= 0.02 + 1e-6
    assert (noise.abs() > 0.0199).float().mean() == pytest.approx(0.0455, abs=0.01)  # beyond two deviations
    assert noise.abs().median() == pytest.approx(0.00674, abs=3e-4)  # of a Gaussian: 0.6745 deviations


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_rotation_keeps_its_axis_and_distances(axis):
    points = cloud(batch=300, dtype=torch.float64)
    out = RandomRotation(axis, 30)(points, generator=seeded())
    along = "xyz".index(axis)
    assert torch.allclose(out[..., along], points[..., along])
    assert torch.allclose(
        torch.cdist(out[..., :3], out[..., :3]), torch.cdist(points[..., :3], points[..., :3])
    )
    a, b = [i for i in range(3) if i != along]
    turned = torch.atan2(out[..., b], out[..., a]) - torch.atan2(points[..., b], points[..., a])
    degrees = (turned * 180 / math.pi + 180) % 360 - 180
    assert (degrees - degrees[:, :1]).abs().max() < 1e-6
    assert 29 < degrees.abs().max() <= 30 + 1e-6
    # normals turn with the points: the angle between a point and its normal stays
    assert torch.allclose((out[..., :3] * out[..., 3:]).sum(-1), (points[..., :3] * points[..., 3:]).sum(-1))


def test_what_is_not_said_is_as_published():
    """PointMLP scales by 2/3 to 3/2 and shifts by 0.2; PointNet++ drops up to 7/8; y is up."""
    ones = torch.ones(3000, 1, 3)
    factor, moved = RandomScale()(ones, generator=seeded()), RandomShift()(ones, generator=seeded()) - 1
    assert [float(factor.min()), float(factor.max())] == pytest.approx([2 / 3, 3 / 2], abs=0.005)
    assert [float(moved.min()), float(moved.max())] == pytest.approx([-0.2, 0.2], abs=0.002)
    points = torch.arange(300.0)[None, :, None].expand(500, -1, 3)
    dropped = (PointDropout()(points, generator=seeded()) != points)[..., 0].float().mean(dim=1)
    assert float(dropped.mean()) == pytest.approx(0.875 / 2, abs=0.03)
    turned = RandomRotation()(cloud(channels=3), generator=seeded())
    assert torch.allclose(turned[..., 1], cloud(channels=3)[..., 1])


def test_rotation_matrices_agree_with_scipy():
    quaternions = torch.nn.functional.normalize(
        torch.randn(50, 4, generator=seeded(), dtype=torch.float64), dim=1
    )
    expected = Rotation.from_quat(quaternions[:, [1, 2, 3, 0]].numpy()).as_matrix()
    assert np.allclose(rotation_matrices(quaternions).numpy(), expected)


def test_full_rotation_is_uniform_and_a_small_one_small():
    basis = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    matrix = RandomRotation("any")(basis, generator=seeded()).transpose(1, 2)
    angle = Rotation.from_matrix(matrix.numpy()).magnitude()
    # under the uniform measure on SO(3) the angle has the distribution function (a - sin a) / pi
    expected = np.sort((angle - np.sin(angle)) / math.pi)
    assert np.abs(expected - np.linspace(0, 1, 4000)).max() < 0.03  # Kolmogorov-Smirnov, p < 0.1 %
    assert matrix.mean(dim=0).abs().max() < 0.04
    small = RandomRotation("any", 15)(basis, generator=seeded()).transpose(1, 2)
    turned = Rotation.from_matrix(small.numpy()).as_rotvec(degrees=True)
    angle = np.linalg.norm(turned, axis=1, keepdims=True)
    assert 14.5 < angle.max() <= 15 + 1e-6
    # of axes uniform on the sphere the mean of a a^T is a third of the identity
    assert np.abs(np.einsum("ni,nj->ij", *[turned / angle] * 2) / 4000 - np.eye(3) / 3).max() < 0.03


def test_dropout_repeats_the_first_kept_point_with_its_label():
    points = torch.arange(2000 * 40, dtype=torch.float32).reshape(2000, 40, 1).expand(-1, -1, 3)
    labels = torch.arange(40).expand(2000, -1)
    out, parts = PointDropout(0.875)(points, labels, generator=seeded())
    assert torch.equal(out[..., 0] - points[:, :1, 0], parts.float())
    moved = parts != labels
    first = torch.where(moved, 40, labels).amin(dim=1, keepdim=True)  # smallest index left in place
    assert torch.equal(parts, torch.where(moved, first, labels))
    # the ratio is uniform on [0, 0.875]
    assert moved.float().mean() == pytest.approx(0.875 / 2, abs=0.03)
    assert moved.float().mean(dim=1).std() == pytest.approx(
        0.875 / 12**0.5, abs=0.03
    )  # each cloud has its own
    everything = PointDropout(1.0)(torch.rand(200, 1, 3), generator=seeded())
    assert everything.shape == (200, 1, 3)


def test_shuffle_is_a_permutation_in_step_with_labels():
    points = torch.arange(30.0).reshape(1, 30, 1).expand(8, -1, 3)
    out, parts = Shuffle()(points, torch.arange(30).expand(8, -1), generator=seeded())
    assert torch.equal(out[..., 0], parts.float())
    assert torch.equal(parts.sort(dim=1).values, torch.arange(30).expand(8, -1))
    assert not torch.equal(parts[0], torch.arange(30))


@pytest.mark.parametrize("count", [1, 5, 12, 30])
def test_resample(count):
    points = torch.arange(float(count)).reshape(1, count, 1).expand(3, -1, 3)
    out = Resample(12)(points, generator=seeded())[..., 0].long()
    for row in out:
        uses = row.bincount(minlength=count)
        assert uses.sum() == 12
        assert uses.max() - uses.min() <= 1
    first = Resample(12, random=False)(points)[0, :, 0].long()
    assert torch.equal(first, torch.arange(12) % count)


def test_compose_is_one_after_the_other_on_one_stream():
    points, generator = cloud(), seeded()
    expected = Shuffle()(RandomScale()(points, generator=generator), generator=generator)
    assert torch.equal(Compose([RandomScale(), Shuffle()])(points, generator=seeded()), expected)


def test_gradients_reach_the_points():
    points = cloud(channels=3, dtype=torch.float64).requires_grad_()
    Compose([RandomScale(2, 2), RandomShift(), Shuffle()])(points, generator=seeded()).sum().backward()
    assert torch.allclose(points.grad, torch.full_like(points, 2.0))


def test_transforms_print_themselves():
    assert (
        repr(Compose([Jitter(), Shuffle()])) == "Compose(transforms=(Jitter(std=0.01, clip=0.05), Shuffle()))"
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomScale(0, 1), "low, high"),
        (lambda: RandomScale(2, 1), "low, high"),
        (lambda: RandomShift(-1), "max_shift"),
        (lambda: Jitter(std=-1), "std"),
        (lambda: Jitter(clip=float("nan")), "clip"),
        (lambda: PointDropout(1.5), "max_ratio"),
        (lambda: RandomRotation("w"), "'w', expected one of any, x, y, z"),
        (lambda: RandomRotation(max_degrees=200), "max_degrees"),
        (lambda: Resample(0), "num_points"),
    ],
)
def test_bad_settings(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_bad_input():
    with pytest.raises(TypeError, match=r"transforms: expected a callable .* but Identity cannot"):
        Compose([torch.nn.Identity()])
    with pytest.raises(TypeError, match=r"got torch\.int64"):
        Shuffle()(torch.zeros(4, 3, dtype=torch.int64))
    for shape in [(3,), (4, 2), (1, 4, 5), (0, 3), (0, 4, 3)]:
        with pytest.raises(ValueError, match="points: expected shape"):
            Shuffle()(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"part_labels: expected shape \(4,\)"):
        Shuffle()(torch.zeros(4, 3), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(TypeError, match="part_labels"):
        Shuffle()(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(NotImplementedError, match="Transform does not implement _apply"):
        Transform()(torch.zeros(4, 3))
