import subprocess
import sys

import numpy as np
import pytest
import torch
from places import ROOT
from torch import nn

from bixt3d.config import from_yaml, to_yaml
from bixt3d.datasets import Shapes
from bixt3d.inference.loading import load, training_points
from bixt3d.inference.predictor import Predictor

CLASSES = ("ball", "cup", "hat")
PARTS = ("ball/all", "cup/body", "cup/handle", "hat/brim", "hat/crown")
RNG = np.random.default_rng(0)


class HeightSegmenter(nn.Module):
    """Scores parts by the height of a point; notes what it was given."""

    in_channels = 3

    def __init__(self, min_points=1, num_parts=5, in_channels=3):
        super().__init__()
        self.min_points = min_points
        self.in_channels = in_channels
        self.num_parts = num_parts
        self.seen, self.categories = [], []

    def forward(self, points, category=None):
        assert points.shape[1] >= self.min_points
        self.seen.append(points.clone())
        self.categories.append(category)
        centres = torch.linspace(-1, 1, self.num_parts)
        return -20 * (points[..., 1:2] - centres) ** 2


class RadiusClassifier(nn.Module):
    """Says class 1 for all clouds."""

    in_channels = 3
    min_points = 1

    def __init__(self, favourite=1, count=3):
        super().__init__()
        self.favourite, self.count = favourite, count
        self.seen = []

    def forward(self, points):
        self.seen.append(points.clone())
        return 3.0 * torch.nn.functional.one_hot(torch.tensor([self.favourite] * len(points)), self.count)


def segmenter(model=None, classes=CLASSES, parts=PARTS, **options):
    options = {"num_points": 64, "batch_size": 3, **options}
    return Predictor(model or HeightSegmenter(), classes=classes, parts=parts, **options)


def cloud(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3)) * 40 + [500_000, 4_000_000, 7]


def expected_labels(points, allowed=(0, 1, 2, 3, 4)):
    """By the definition of the stand-in, in float64."""
    centred = points - points.mean(axis=0)
    y = (centred / np.linalg.norm(centred, axis=1).max())[:, 1:2]
    distance = (y - np.linspace(-1, 1, len(PARTS))) ** 2
    outside = [i for i in range(len(PARTS)) if i not in allowed]
    distance[:, outside] = np.inf
    return distance.argmin(axis=1)


@pytest.mark.parametrize("count", [2, 10, 63, 64, 65, 128, 1000])
def test_every_point_gets_its_own_label_whatever_their_number(count):
    points = cloud(count)
    prediction = segmenter()(points)
    assert prediction.labels.dtype == np.int64
    assert np.array_equal(prediction.labels, expected_labels(points))
    assert prediction.probabilities.shape == (count, len(PARTS))
    assert np.allclose(prediction.probabilities.sum(axis=1), 1, atol=1e-5)
    assert prediction.names == PARTS


def test_large_clouds_are_cut_into_subsets_of_the_training_size():
    model = HeightSegmenter()
    segmenter(model)(cloud(1000))
    shapes = [tuple(batch.shape) for batch in model.seen]
    assert sum(batch for batch, _, _ in shapes) == 16  # 1000 / 64, rounded up
    assert {size for _, size, _ in shapes} == {64}
    assert max(batch for batch, _, _ in shapes) == 3
    for subset in torch.cat(model.seen):
        assert len(subset.unique(dim=0)) == 64  # no point twice: as dense as in training
        # interleaved: a subset spans the cloud, where a cut by order or place would not
        assert (subset.amax(dim=0) - subset.amin(dim=0)).min() > 0.5


def test_the_draw_follows_the_seed():
    points = cloud(300)
    order = []
    for seed in (0, 0, 1):
        model = HeightSegmenter()
        segmenter(model, seed=seed)(points)
        order.append(torch.cat(model.seen))
    assert torch.equal(order[0], order[1])
    assert not torch.equal(order[0], order[2])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_small_clouds_are_filled_up_by_repetition(count):
    model = HeightSegmenter(min_points=20)
    points = cloud(count)
    prediction = segmenter(model)(points)
    assert model.seen[0].shape == (1, 20, 3)
    times = model.seen[0][0].unique(dim=0, return_counts=True)[1]
    assert len(times) == count
    assert times.max() - times.min() <= 1
    assert prediction.labels.shape == (count,)
    if count > 1:
        assert np.array_equal(prediction.labels, expected_labels(points))


def test_unit_and_offset_do_not_matter():
    points = np.random.default_rng(1).normal(size=(200, 3))
    here = segmenter()(points)
    there = segmenter()(points * 1000 + [5e5, 4e6, 100])
    assert np.array_equal(here.labels, there.labels)
    assert np.allclose(here.probabilities, there.probabilities, atol=1e-4)


@pytest.mark.parametrize(("up", "lying"), [("z", (0, 2, 1)), ("x", (1, 0, 2))])
def test_the_model_sees_clouds_upright(up, lying):
    """A cloud whose axis ``up`` is up is labelled as the same cloud is with y up."""
    points = cloud(200)
    turned = points[:, lying] * [1, -1, 1]
    wanted = segmenter()(points)
    found = segmenter()(turned, up=up)
    assert np.array_equal(found.labels, wanted.labels)
    assert np.allclose(found.probabilities, wanted.probabilities, atol=1e-5)
    assert not np.array_equal(segmenter()(turned).labels, wanted.labels)
    with pytest.raises(ValueError, match="up: unknown value 'north', expected one of x, y, z"):
        segmenter()(points, up="north")


def test_an_axis_that_is_no_axis_is_refused_before_any_cloud():
    with pytest.raises(ValueError, match="up: unknown value 'north', expected one of x, y, z"):
        segmenter(up="north")


@pytest.mark.parametrize("trained", ["z", "x", "y", None])
def test_a_loaded_model_takes_clouds_as_they_lay_in_training(tiny_run, tmp_path, trained):
    """Its files were turned by ``data.up``; so are new ones, unless a call says how they lie."""
    content = torch.load(tiny_run / "best.pt", weights_only=True)
    config = from_yaml(content["config"])
    if trained is not None:
        config["data"]["up"] = trained
    torch.save({**content, "config": to_yaml(config)}, tmp_path / "best.pt")
    points = cloud(32)
    x, y, z = points.T
    upright = {"z": (x, z, -y), "x": (-y, x, z)}.get(trained, (x, y, z))
    predictor = load(tmp_path / "best.pt", device="cpu")
    (alone,), (listed,) = [predictor(points)], predictor([points])
    wanted = load(tiny_run / "best.pt", device="cpu")(np.stack(upright, 1)).probabilities
    for found in (alone, listed, predictor(np.stack(upright, 1), up="y")):
        assert np.allclose(found.probabilities, wanted, atol=1e-6)


@pytest.mark.parametrize("count", [40, 200])
def test_normals_turn_with_the_cloud(count):
    model = HeightSegmenter(in_channels=6)
    normals = np.tile([0.0, 0.0, 1.0], (count, 1))
    segmenter(model)(cloud(count), normals=normals, up="z")
    assert all(
        torch.equal(seen[..., 3:], torch.tensor([0.0, 1.0, 0.0]).expand_as(seen[..., 3:]))
        for seen in model.seen
    )


def test_a_known_category_leaves_its_parts():
    points = cloud(100)
    prediction = segmenter()(points, category="cup")
    assert np.array_equal(prediction.labels, expected_labels(points, allowed=[1, 2]))
    assert (prediction.probabilities[:, [0, 3, 4]] == 0).all()
    assert np.allclose(prediction.probabilities.sum(axis=1), 1, atol=1e-5)
    assert prediction.category == "cup"


def test_the_category_reaches_a_model_that_takes_it():
    model = HeightSegmenter()
    segmenter(model, takes_category=True)(cloud(10), category="hat")
    assert model.categories[0].tolist() == [2]
    model = HeightSegmenter()
    segmenter(model)(cloud(10), category="hat")
    assert model.categories == [None]


def test_classes_need_not_be_in_the_order_of_the_alphabet():
    model = HeightSegmenter()
    parts = ("hat/brim", "hat/crown", "ball/all", "cup/body", "cup/handle")
    predictor = segmenter(model, ("hat", "ball", "cup"), parts, takes_category=True)
    assert set(predictor(cloud(100), category="hat").labels) <= {0, 1}
    assert set(predictor(cloud(100), category="cup").labels) <= {3, 4}
    assert torch.cat(model.categories).tolist() == [0, 0, 2, 2]


def test_a_missing_category_is_asked_for_or_the_only_one():
    with pytest.raises(ValueError, match=r"give --category NAME .* one of ball, cup, hat, or --classifier"):
        segmenter(takes_category=True)(cloud(10))
    one = segmenter(HeightSegmenter(num_parts=2), ("cup",), PARTS[1:3], takes_category=True)
    assert one(cloud(10)).category == "cup"
    with pytest.raises(ValueError, match="unknown value 'cat', expected one of ball, cup, hat"):
        segmenter()(cloud(10), category="cat")


def test_a_classifier_says_the_category():
    says_cup = Predictor(RadiusClassifier(1, 2), classes=("cat", "cup"), num_points=64)
    prediction = segmenter(takes_category=True, classifier=says_cup)(cloud(90))
    assert prediction.category == "cup"
    assert set(prediction.labels) <= {1, 2}
    # the best of those that the segmenter knows, even where another class is more probable
    says_cat = Predictor(RadiusClassifier(0, 2), classes=("cat", "cup"), num_points=64)
    assert segmenter(classifier=says_cat)(cloud(90)).category == "cup"
    with pytest.raises(ValueError, match="classifier: knows cat, dog, expected some of ball, cup, hat"):
        segmenter(classifier=Predictor(RadiusClassifier(0, 2), classes=("cat", "dog")))
    with pytest.raises(ValueError, match="classifier: expected a checkpoint that predicts classes"):
        segmenter(classifier=segmenter())


def test_the_classifier_that_says_the_category_sees_the_cloud_upright():
    points, model = cloud(60), RadiusClassifier()
    predictor = segmenter(classifier=Predictor(model, classes=CLASSES, num_points=64))
    predictor(points)
    predictor(points[:, [0, 2, 1]] * [1, -1, 1], up="z")
    lying = segmenter(classifier=Predictor(model, classes=CLASSES, num_points=64, up="z"), up="z")
    lying(points[:, [0, 2, 1]] * [1, -1, 1])
    for seen in model.seen[1:]:
        torch.testing.assert_close(seen, model.seen[0])


def test_a_model_that_was_in_training_predicts_in_evaluation():
    class Forgetful(RadiusClassifier):
        def forward(self, points):
            return nn.functional.dropout(super().forward(points), training=self.training)

    predictor = Predictor(Forgetful().train(), classes=CLASSES, num_points=64)
    assert len({predictor(cloud(30)).probabilities.max() for _ in range(20)}) == 1


def test_a_classifier_sees_one_subset_of_the_normalised_cloud():
    """As a loader's: the cloud is centred and scaled whole, and what is drawn of it stays where it is."""
    model, points = RadiusClassifier(), cloud(1000)
    predictor = Predictor(model, classes=CLASSES, num_points=64)
    prediction = predictor(points)
    (seen,) = model.seen
    assert seen.shape == (1, 64, 3)
    centred = points - points.mean(axis=0)
    whole = centred / np.linalg.norm(centred, axis=1).max()
    apart = np.linalg.norm(seen[0].numpy()[:, None] - whole[None], axis=-1)
    assert apart.min(axis=1).max() < 1e-6
    assert len(set(apart.argmin(axis=1))) == 64
    assert prediction.name == "cup"
    assert prediction.labels.shape == ()
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert [name for name, _ in prediction.top(2)] == ["cup", "ball"]
    e = np.exp(3)
    assert prediction.top(1)[0][1] == pytest.approx(e / (e + 2), abs=1e-6)


def test_a_classifier_of_a_whole_cloud_says_the_mean_over_its_subsets():
    class Heights(RadiusClassifier):
        def forward(self, points):
            super().forward(points)
            return points[:, :3, 1] * 5

    model = Heights()
    predictor = Predictor(model, classes=CLASSES, num_points=64, batch_size=2)
    (prediction,) = predictor.run([predictor.prepare(cloud(300), whole=True)])
    each = torch.cat([(5 * seen[:, :3, 1]).softmax(dim=-1) for seen in model.seen])
    assert each.shape == (5, 3)
    assert each.argmax(dim=1).unique().numel() > 1, "else this test could not tell one subset from the mean"
    np.testing.assert_allclose(prediction.probabilities, each.mean(dim=0), atol=1e-6)
    assert prediction.labels == each.mean(dim=0).argmax()


def test_many_clouds_at_once_give_what_each_gives_alone():
    clouds = [cloud(count, seed) for seed, count in enumerate((5, 64, 200, 64, 30, 64, 64))]
    predictor = segmenter(batch_size=2)
    together = predictor.run([predictor.prepare(points) for points in clouds])
    for points, prediction in zip(clouds, together, strict=True):
        assert np.array_equal(prediction.labels, predictor(points).labels)
        assert np.allclose(prediction.probabilities, predictor(points).probabilities, atol=1e-6)


@pytest.mark.parametrize("form", [list, tuple, np.stack, lambda clouds: torch.from_numpy(np.stack(clouds))])
def test_a_call_takes_several_clouds_too(form):
    clouds, model = [cloud(100, seed) for seed in range(5)], HeightSegmenter()
    predictor = segmenter(model, batch_size=4)
    alone = [predictor(points) for points in clouds]
    model.seen.clear()
    together = predictor(form(clouds))
    assert [len(batch) for batch in model.seen] == [4, 4, 2], "two passes a cloud, four at a time"
    assert [p.category for p in together] == [None] * 5
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.probabilities, one.probabilities, atol=1e-6)
        assert np.array_equal(other.labels, one.labels)


def test_several_clouds_have_each_its_category_and_normals():
    model = HeightSegmenter(in_channels=6)
    predictor, points = segmenter(model, batch_size=4), RNG.normal(size=(3, 64, 3))
    normals = points / np.linalg.norm(points, axis=-1, keepdims=True)
    found = predictor(points, normals=2 * normals, category=["cup", None, "hat"])
    assert [p.category for p in found] == ["cup", None, "hat"]
    np.testing.assert_allclose(torch.cat(model.seen)[..., 3:], normals, atol=1e-6)
    assert [p.category for p in predictor([*np.concatenate([points, normals], -1)], category="cup")] == [
        "cup"
    ] * 3
    for name, given in (("normals", normals[:2]), ("category", ["cup"])):
        with pytest.raises(ValueError, match=f"^{name}: expected one for each of 3 clouds, got {len(given)}"):
            predictor(points, **{name: given})
    points[1, 5] = np.nan
    with pytest.raises(ValueError, match=r"^points\[1\]: 1 of 64 points have NaN"):
        predictor(points)


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_the_precision_is_that_of_the_models_products(precision, dtype):
    class Linear(RadiusClassifier):
        def forward(self, points):
            self.made = points.mean(dim=1) @ torch.eye(3)
            return self.made

    model = Linear()
    prediction = Predictor(model, classes=CLASSES, precision=precision)(cloud(30))
    assert model.made.dtype == dtype
    assert prediction.probabilities.dtype == np.float32
    assert not torch.is_autocast_enabled("cpu")


def test_a_precision_that_cannot_be():
    with pytest.raises(
        ValueError, match=r"precision: expected one of 16-mixed, 32-true, bf16-mixed, got 'fp8'"
    ):
        Predictor(RadiusClassifier(), classes=CLASSES, precision="fp8")
    with pytest.raises(
        ValueError, match="precision: 16-mixed needs a CUDA device; use bf16-mixed or 32-true"
    ):
        Predictor(RadiusClassifier(), classes=CLASSES, precision="16-mixed")


def test_half_precision_gives_nearly_the_same_probabilities():
    """The largest difference measured was 0.024."""
    weights = ROOT / "weights" / "modelnet40_cpu_mix.safetensors"
    clouds = Shapes(num_test=24, num_points=512).load("test").points
    exact, rounded = (load(weights, device="cpu", precision=p)(clouds) for p in ("32-true", "bf16-mixed"))
    for one, other in zip(exact, rounded, strict=True):
        assert other.probabilities.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(other.probabilities, one.probabilities, atol=0.05)
    assert any(
        (one.probabilities != other.probabilities).any() for one, other in zip(exact, rounded, strict=True)
    )


def test_normals_are_taken_given_or_estimated(caplog):
    xyz = np.random.default_rng(0).normal(size=(100, 3))
    xyz /= np.linalg.norm(xyz, axis=1, keepdims=True)  # on a sphere the normal is the point itself
    model = HeightSegmenter(in_channels=6)
    predictor = segmenter(model, num_points=200)
    predictor(np.concatenate([xyz, xyz], axis=1))
    assert np.allclose(model.seen[-1][0, :, 3:], xyz)
    predictor(xyz, normals=-xyz)
    assert np.allclose(model.seen[-1][0, :, 3:], -xyz)
    pytest.importorskip("open3d", reason="open3d is not installed", exc_type=(ImportError, OSError))
    many = np.random.default_rng(0).normal(size=(150, 3))
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    predictor(many)
    estimated = model.seen[-1][0, :, 3:].numpy()
    cosine = (estimated * many).sum(axis=1)
    assert np.median(cosine) > 0.98
    assert cosine.min() > 0, "all of them look outwards"
    assert "estimated" in caplog.text


def test_absent_normals_without_open3d(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    words = r"takes normals and the cloud has none.*pip install open3d \(or the smaller open3d-cpu\)"
    with pytest.raises(ImportError, match=words):
        segmenter(HeightSegmenter(in_channels=6))(cloud(30))


BAD = {
    "empty": (np.zeros((0, 3)), ValueError, "no points"),
    "nan": (np.array([[0, 0, np.nan], [1, 1, 1]]), ValueError, "1 of 2 points"),
    "equal": (np.ones((9, 3)), ValueError, "all 9 points coincide"),
    "flat": (np.zeros(3), ValueError, r"expected shape \(N, 3\)"),
    "four": (np.zeros((5, 4)), ValueError, r"expected shape \(N, 3\)"),
    "text": (np.array([["a", "b", "c"]]), TypeError, "real numbers"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input_is_one_sentence(name):
    points, error, words = BAD[name]
    with pytest.raises(error, match=words) as caught:
        segmenter()(points)
    assert "\n" not in str(caught.value)


def test_what_a_classifier_would_not_use_is_refused():
    classifier = Predictor(RadiusClassifier(), classes=CLASSES, num_points=64)
    with pytest.raises(ValueError, match=r"category: this model is a classifier.*leave it out"):
        classifier(cloud(30), category="cup")
    with pytest.raises(ValueError, match=r"classifier: this model predicts classes itself"):
        Predictor(RadiusClassifier(), classes=CLASSES, classifier=classifier)
    with pytest.raises(ValueError, match=r"seed: expected 0 or more, got -1"):
        Predictor(RadiusClassifier(), classes=CLASSES, seed=-1)


def test_options_of_loading_hold_for_the_classifier_too(tiny_run, monkeypatch):
    import bixt3d.inference.loading

    made = []
    monkeypatch.setattr(bixt3d.inference.loading, "Predictor", lambda model, **options: made.append(options))
    load(
        tiny_run,
        classifier=tiny_run,
        seed=5,
        batch_size=3,
        device="cpu",
        precision="bf16-mixed",
        compile=True,
        drop_strays=True,
    )
    inner, outer = made
    for name in ("seed", "batch_size", "device", "precision", "drop_strays", "compile"):
        assert inner[name] == outer[name], name
    assert (inner["seed"], inner["batch_size"], inner["drop_strays"]) == (5, 3, True)
    assert (inner["precision"], inner["compile"]) == ("bf16-mixed", True)


def test_a_device_that_is_not_there_is_one_sentence(tiny_run):
    name = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(
        ValueError, match=rf"device: '{name}' cannot be used here \(.*\); expected one of cpu"
    ):
        load(tiny_run, device=name)


def test_points_of_training_are_those_of_the_config_or_of_the_data_set():
    assert training_points({"_target_": "bixt3d.datasets.ShapeNetPart", "num_points": 77}) == 77
    assert training_points({"_target_": "bixt3d.datasets.ShapeNetPart", "root": "x"}) == 2048
    assert training_points({"_target_": "bixt3d.datasets.ModelNet40"}) == 1024


def test_importing_the_package_still_loads_no_torch():
    code = "import sys, bixt3d; assert 'torch' not in sys.modules; bixt3d.load; assert 'torch' in sys.modules"
    code += (
        "; assert not {'open3d', 'matplotlib', 'hydra', 'trimesh', 'h5py', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
