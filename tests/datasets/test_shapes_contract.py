"""What the procedural data set promises to stay: classes in turn, seeds of clouds, numbers that are refused."""

import math

import numpy as np
import pytest

from bixt3d.datasets.shape_assembly import Assembly
from bixt3d.datasets.shape_categories import CATEGORIES
from bixt3d.datasets.shapes import Shapes


def test_classes_take_turns_from_the_first():
    loaded = Shapes(num_train=26, num_points=16).load("train")
    assert loaded.labels.tolist() == [*range(12), *range(12), 0, 1]
    assert loaded.names[0] == "shapes/train/airplane_00000"
    assert loaded.names[25] == "shapes/train/bottle_00025"


def test_labels_mean_for_good_what_they_mean():
    parts = {
        "airplane": "fuselage wings tail engines",
        "bottle": "body neck cap",
        "car": "body cabin wheels",
        "chair": "seat back legs arms",
        "guitar": "body neck head",
        "headphones": "band cups microphone",
        "lamp": "base pole shade",
        "laptop": "base screen",
        "mug": "body handle saucer",
        "rocket": "body nose fins engine",
        "skateboard": "deck trucks wheels",
        "table": "top legs shelf",
    }
    assert Shapes().classes == tuple(parts)
    assert Shapes().parts == tuple(f"{name}/{part}" for name, text in parts.items() for part in text.split())


@pytest.mark.parametrize(("split", "place"), [("train", 0), ("val", 1), ("test", 2)])
def test_a_cloud_is_drawn_from_seed_split_and_number_for_good(split, place):
    """Cloud 7, a laptop, put together here as the class says: angle, object, points."""
    loaded = Shapes(num_train=8, num_val=8, num_test=8, num_points=50, seed=5).load(split)
    rng = np.random.default_rng(np.random.SeedSequence((5, place, 7)))
    angle = math.radians(rng.uniform(0, 360))
    laptop = Assembly(CATEGORIES["laptop"].parts)
    CATEGORIES["laptop"].build(rng, laptop)
    points, _, part = laptop.sample(rng, 50)
    x, y, z = points.T
    turned = np.stack(
        [x * math.cos(angle) + z * math.sin(angle), y, z * math.cos(angle) - x * math.sin(angle)]
    )
    centred = turned.T - turned.mean(axis=1)
    np.testing.assert_allclose(loaded.points[7], centred / np.linalg.norm(centred, axis=1).max(), atol=1e-6)
    first = loaded.parts.index("laptop/base")
    assert np.array_equal(loaded.part_labels[7], first + part)


def test_infinite_noise_is_refused_and_seed_0_is_not():
    with pytest.raises(ValueError, match="noise: got inf, expected a finite number"):
        Shapes(noise=math.inf)
    assert Shapes(seed=0).seed == 0


def category(name, seeds=20):
    """Return the points of each part of some objects of a category, as they are built, before any turn."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        assembly = Assembly(CATEGORIES[name].parts)
        CATEGORIES[name].build(rng, assembly)
        points, _, part = assembly.sample(rng, 2000)
        found.append({CATEGORIES[name].parts[i]: points[part == i] for i in np.unique(part)})
    return found


def height(points):
    return points[:, 1].mean()


@pytest.mark.parametrize(
    ("name", "above", "below"),
    [
        ("airplane", "tail", "wings"),
        ("bottle", "neck", "body"),
        ("bottle", "cap", "body"),
        ("car", "cabin", "body"),
        ("chair", "arms", "seat"),
        ("chair", "back", "seat"),
        ("chair", "seat", "legs"),
        ("guitar", "head", "neck"),
        ("guitar", "neck", "body"),
        ("laptop", "screen", "base"),
        ("rocket", "nose", "body"),
        ("rocket", "body", "engine"),
        ("skateboard", "deck", "trucks"),
        ("skateboard", "deck", "wheels"),
        ("table", "top", "shelf"),
    ],
)
def test_what_lies_above_what(name, above, below):
    heights = [(height(o[above]), height(o[below])) for o in category(name) if above in o and below in o]
    assert heights
    if name == "airplane":  # whose wings may lie high, but not on the average
        heights = [tuple(np.mean(heights, axis=0))]
    assert all(up > down for up, down in heights)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("airplane", "wings"),
        ("airplane", "engines"),
        ("car", "wheels"),
        ("chair", "arms"),
        ("headphones", "cups"),
        ("skateboard", "wheels"),
        ("table", "legs"),
    ],
)
def test_pairs_stand_on_both_sides(name, part):
    """Left and right are -z and +z, for headphones -x and +x."""
    axis = 0 if name == "headphones" else 2
    for built in category(name):
        if part in built:
            side = built[part][:, axis]
            assert side.max() == pytest.approx(-side.min(), rel=0.15)
            if (name, part) != ("table", "legs"):
                assert abs((side > 0).mean() - 0.5) < 0.2


def test_wheels_are_round_seen_from_the_side():
    for name in ("car", "skateboard"):
        for built in category(name, 5):
            wheels = built["wheels"]
            one = wheels[(wheels[:, 0] > 0) & (wheels[:, 2] > 0)]
            x, y, z = np.ptp(one, axis=0)
            assert x == pytest.approx(y, rel=0.1), "as long as it is high"
            assert z < 1.5 * x


def test_a_mugs_handle_meets_its_side():
    for built in category("mug"):
        body, handle = built["body"], built["handle"]
        low, high = body[:, 1].min(), body[:, 1].max()
        assert low < handle[:, 1].min() < handle[:, 1].max() < high
        assert handle[:, 0].max() > body[:, 0].max()


def test_fins_go_all_round_a_rocket():
    for built in category("rocket"):
        angle = np.sort(np.arctan2(built["fins"][:, 2], built["fins"][:, 0]))
        gaps = np.diff(np.append(angle, angle[0] + 2 * math.pi))
        assert gaps.max() < math.radians(125), "of three fins 120 degrees, less their thickness"


def test_a_strut_may_be_thicker_at_its_end():
    assembly = Assembly(("leg",))
    assembly.add_strut("leg", (0, 0, 0), (0, 2, 0), 0.1, 0.3)
    points, _, _ = assembly.sample(np.random.default_rng(0), 3000)
    radius = np.hypot(points[:, 0], points[:, 2])
    for low, high, wide in ((0.02, 0.2, 0.12), (1.8, 1.98, 0.298)):
        assert radius[(points[:, 1] > low) & (points[:, 1] < high)].max() == pytest.approx(wide, abs=0.01)
