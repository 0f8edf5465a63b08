"""The procedural data set."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist

from bixt3d.datasets.shape_assembly import Assembly
from bixt3d.datasets.shape_categories import CATEGORIES
from bixt3d.datasets.shapes import Shapes


@pytest.fixture(scope="module")
def clouds():
    return Shapes(num_train=600, num_points=256, normals=True).load("train")


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_same_seed_gives_the_same_clouds_and_another_seed_gives_others():
    first = Shapes(num_val=24, num_points=64).load("val")
    again = Shapes(num_val=24, num_points=64).load("val")
    other = Shapes(num_val=24, num_points=64, seed=1).load("val")
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_array_equal(first.part_labels, again.part_labels)
    assert not any(np.array_equal(a, b) for a, b in zip(first.points, other.points, strict=True))


def test_a_cloud_does_not_depend_on_how_many_there_are():
    few = Shapes(num_train=7, num_val=1, num_test=1, num_points=64).load("train")
    many = Shapes(num_train=30, num_val=9, num_test=2, num_points=64).load("train")
    np.testing.assert_array_equal(few.points, many.points[:7])
    np.testing.assert_array_equal(few.part_labels, many.part_labels[:7])
    assert few.names == many.names[:7]


def test_all_clouds_of_all_splits_are_distinct():
    shapes = Shapes(num_train=1000, num_val=600, num_test=600, num_points=16)
    everything = np.concatenate([shapes.load(split).points for split in ("train", "val", "test")])
    assert len({cloud.tobytes() for cloud in everything}) == 2200


def test_distinct_clouds_are_distinct_objects_too(clouds):
    # Extents along y survive the rotation about y: equal ones would betray a repeated object.
    heights = np.ptp(clouds.points[:, :, 1], axis=1)
    assert len(np.unique(np.round(heights, 5))) > 590


@pytest.mark.parametrize(("split", "count"), [("train", 50), ("val", 12), ("test", 31)])
def test_every_class_is_present_and_balanced(split, count):
    shapes = Shapes(num_train=50, num_val=12, num_test=31, num_points=32)
    loaded = shapes.load(split)
    per_class = np.bincount(loaded.labels, minlength=len(shapes.classes))
    assert len(loaded) == count
    assert len(shapes.classes) >= 10
    assert per_class.min() >= 1
    assert np.ptp(per_class) <= 1


def test_arrays_have_the_declared_shapes_and_types(clouds):
    assert clouds.points.shape == (600, 256, 6)
    assert clouds.points.dtype == np.float32
    assert clouds.part_labels.shape == (600, 256)
    assert clouds.classes == tuple(sorted(clouds.classes))
    assert len(set(clouds.names)) == 600
    assert Shapes(num_val=2, num_points=32, stored_points=80).load("val").points.shape == (2, 80, 3)
    assert Shapes(num_val=2, num_points=32).load("val").points.shape == (2, 32, 3)


def test_parts_belong_to_the_class_of_the_cloud_and_lie_side_by_side(clouds):
    owner = [part.split("/")[0] for part in clouds.parts]
    assert [name for i, name in enumerate(owner) if i == 0 or name != owner[i - 1]] == list(clouds.classes)
    for label, part in zip(clouds.labels, clouds.part_labels, strict=True):
        assert {owner[p] for p in part} == {clouds.classes[label]}


def test_every_part_occurs_and_each_present_part_has_a_handful_of_points(clouds):
    counts = np.stack([np.bincount(part, minlength=len(clouds.parts)) for part in clouds.part_labels])
    assert (counts.sum(axis=0) > 0).all()
    assert counts[counts > 0].min() >= 8
    # Optional parts are sometimes absent, the others never.
    present = (counts > 0).sum(axis=0) / 50
    optional = {clouds.parts[i] for i in np.nonzero(present < 1.0)[0]}
    assert optional == {
        "airplane/engines",
        "bottle/cap",
        "chair/arms",
        "headphones/microphone",
        "mug/saucer",
        "rocket/engine",
        "table/shelf",
    }


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_clouds_are_centred_on_their_mean_and_reach_radius_one(noise):
    points = Shapes(num_test=60, num_points=512, noise=noise).load("test").points
    np.testing.assert_allclose(points.mean(axis=1, dtype=np.float64), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(points, axis=2).max(axis=1), 1.0, atol=1e-6)


def test_normals_are_unit_and_leave_the_points_as_they_are(clouds):
    np.testing.assert_allclose(np.linalg.norm(clouds.points[:, :, 3:], axis=2), 1.0, atol=1e-5)
    bare = Shapes(num_train=600, num_points=256).load("train")
    np.testing.assert_array_equal(bare.points, clouds.points[:, :, :3])


def test_normals_of_convex_parts_point_away_from_their_middle(clouds):
    for name in (
        "bottle/body",
        "rocket/body",
        "rocket/nose",
        "car/body",
        "car/cabin",
        "laptop/base",
        "chair/seat",
    ):
        part = clouds.parts.index(name)
        for points, labels in zip(clouds.points, clouds.part_labels, strict=True):
            own = points[labels == part]
            if len(own) >= 30:
                away = own[:, :3] - 0.5 * (own[:, :3].min(axis=0) + own[:, :3].max(axis=0))
                assert ((away * own[:, 3:]).sum(axis=1) > 0.0).mean() > 0.9, name


def test_normals_of_a_laptop_lid_follow_its_rotation():
    # The lid is a thin box: nearly all its normals are parallel to the direction of least spread.
    loaded = Shapes(num_train=24, num_points=512, normals=True).load("train")
    lid = loaded.parts.index("laptop/screen")
    laptops = np.nonzero(loaded.labels == loaded.classes.index("laptop"))[0]
    for cloud in laptops:
        points = loaded.points[cloud][loaded.part_labels[cloud] == lid]
        xyz = points[:, :3] - points[:, :3].mean(axis=0)
        thin = np.linalg.svd(xyz)[2][2]
        assert np.median(np.abs(points[:, 3:] @ thin)) > 0.99


def test_noise_has_the_stated_size_and_keeps_the_object():
    clean = Shapes(num_test=12, num_points=1024).load("test")
    noisy = Shapes(num_test=12, num_points=1024, noise=0.01).load("test")
    np.testing.assert_array_equal(clean.part_labels, noisy.part_labels)
    # The farthest noisy point sets the scale again, so compare up to a few per cent.
    assert np.std(noisy.points - clean.points) == pytest.approx(0.01, rel=0.5)


def test_the_rotation_about_y_is_uniform():
    # The screen of a laptop stands behind its base, so base - screen points to its front.
    loaded = Shapes(num_train=12 * 120, num_points=32).load("train")
    angles = []
    for cloud in np.nonzero(loaded.labels == loaded.classes.index("laptop"))[0]:
        points, part = loaded.points[cloud], loaded.part_labels[cloud]
        base, screen = (part == loaded.parts.index(f"laptop/{name}") for name in ("base", "screen"))
        front = points[base].mean(axis=0) - points[screen].mean(axis=0)
        angles.append(math.atan2(front[2], front[0]) / (2.0 * math.pi) % 1.0)
    assert stats.kstest(angles, "uniform").pvalue > 0.001


def test_objects_stand_upright():
    loaded = Shapes(num_train=120, num_points=256).load("train")

    def height(cloud, name):
        return loaded.points[cloud, loaded.part_labels[cloud] == loaded.parts.index(name), 1].mean()

    for cloud, label in enumerate(loaded.labels):
        name = loaded.classes[label]
        for above, below in (
            ("table/top", "table/legs"),
            ("chair/back", "chair/legs"),
            ("car/cabin", "car/wheels"),
        ):
            if above.startswith(name):
                assert height(cloud, above) > height(cloud, below)


def test_the_first_points_are_a_fair_subset():
    loaded = Shapes(num_train=240, num_points=128, stored_points=1024).load("train")
    first = loaded.part_labels[:, :128]
    for label in range(len(loaded.classes)):
        own = loaded.labels == label
        among_first = np.bincount(first[own].ravel(), minlength=len(loaded.parts)) / first[own].size
        among_all = np.bincount(loaded.part_labels[own].ravel(), minlength=len(loaded.parts))
        np.testing.assert_allclose(among_first, among_all / among_all.sum(), atol=0.03)


def describe(points):
    """Describe a cloud by its pairwise distances and by radius over height: blind to rotation about y."""
    distances = np.histogram(pdist(points[:128]), bins=24, range=(0.0, 2.0), density=True)[0]
    radius = np.hypot(points[:, 0], points[:, 2])
    profile = np.histogram2d(points[:, 1], radius, bins=(8, 4), range=((-1, 1), (0, 1)))[0] / len(points)
    return np.concatenate([distances / np.linalg.norm(distances), profile.ravel() / np.linalg.norm(profile)])


def test_a_nearest_neighbour_of_simple_descriptors_tells_the_classes_apart():
    shapes = Shapes(num_train=480, num_test=120, num_points=256)
    train, test = shapes.load("train"), shapes.load("test")
    known = np.stack([describe(cloud) for cloud in train.points])
    asked = np.stack([describe(cloud) for cloud in test.points])
    nearest = np.linalg.norm(asked[:, None] - known, axis=2).argmin(axis=1)
    accuracy = np.mean(train.labels[nearest] == test.labels)
    # Chance is 1/12. Not perfect either: the descriptor is crude, and the proportions vary widely.
    assert 0.75 < accuracy < 1.0


def test_a_class_cannot_be_read_off_one_extent():
    # The ratio of height to width separates the classes only in part, or the data set would be trivial.
    shapes = Shapes(num_train=480, num_test=240, num_points=128)

    def aspect(points):
        return np.ptp(points[:, :, 1], axis=1) / np.hypot(points[:, :, 0], points[:, :, 2]).max(axis=1)

    train, test = shapes.load("train"), shapes.load("test")
    nearest = np.abs(aspect(test.points)[:, None] - aspect(train.points)).argmin(axis=1)
    assert np.mean(train.labels[nearest] == test.labels) < 0.6


@pytest.mark.parametrize("name", CATEGORIES)
def test_many_random_proportions_can_be_built(name):
    for seed in range(150):
        assembly = Assembly(CATEGORIES[name].parts)
        CATEGORIES[name].build(rng(seed), assembly)
        points, _, _ = assembly.sample(rng(seed), 32)
        assert np.isfinite(points).all()
        assert np.abs(points).max() < 3.0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"num_train": 0}, ValueError, "num_train: got 0, expected at least 1"),
        ({"num_val": 1.5}, TypeError, "num_val: got 1.5 of type float, expected an integer"),
        ({"num_points": 8}, ValueError, "num_points: got 8, expected at least 16"),
        ({"num_points": 64, "stored_points": 32}, ValueError, "stored_points: got 32 for num_points 64"),
        ({"stored_points": "many"}, TypeError, "stored_points: got 'many'"),
        ({"noise": -0.1}, ValueError, "noise: got -0.1"),
        ({"noise": math.nan}, ValueError, "noise: got nan"),
        ({"seed": -1}, ValueError, "seed: got -1"),
        ({"seed": None}, TypeError, "seed: got None"),
    ],
)
def test_a_bad_argument_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        Shapes(**arguments)


def test_an_unknown_split_names_the_valid_ones():
    with pytest.raises(ValueError, match=r"got 'training', expected one of \['test', 'train', 'val'\]"):
        Shapes().load("training")
