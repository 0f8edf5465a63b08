"""Configs: every one that is shipped can be built and trained, and a wrong one says what is wrong."""

import inspect
import pickle
import sys
from functools import partial

import pytest
import torch
from places import ROOT
from torch import nn

from bixt3d.config import build, build_settings, from_yaml, override, to_yaml
from bixt3d.datasets import Batch, Shapes
from bixt3d.optim import parameter_groups
from bixt3d.signatures import check
from bixt3d.training.assembly import build_augment, build_model, build_task, check_fit
from bixt3d.training.search import read_search
from bixt3d.training.settings import TrainSettings

CFGS = ROOT / "cfgs"
CONFIGS = sorted(CFGS.glob("*.yaml"))
SEARCHES = sorted(CFGS.glob("search/*.yaml"))
OPTIONS = sorted(p for p in CFGS.glob("*/*.yaml") if p not in SEARCHES)
CLASSES, PARTS = ("bag", "cap"), ("bag/body", "bag/strap", "cap/crown")


def train_one_step(config):
    """Build all that the config names, except the data, and take one step on random clouds."""
    torch.manual_seed(0)
    settings = build_settings(TrainSettings, config["train"], "train")
    check(config["data"], "data")
    task = build_task(config, CLASSES, PARTS)
    model = build_model(config, task)
    augment = build_augment(config, model)
    optimizer = build(config["optim"]["optimizer"])(
        parameter_groups(model, decay_all=config["optim"].get("decay_all", False))
    )
    scheduler = build(config["optim"]["schedule"])(optimizer, epochs=settings.epochs, steps_per_epoch=3)
    assert model.min_points <= config["data"]["num_points"]
    assert model.in_channels == 3 + 3 * config["data"].get("normals", False)

    n = max(32, model.min_points)
    points = torch.randn(2, n, model.in_channels)
    points[..., :3] /= points[..., :3].norm(dim=-1, keepdim=True)
    points, part_labels = augment(
        points, torch.randint(3, (2, n)), generator=torch.Generator().manual_seed(0)
    )
    batch = Batch(points, torch.tensor([0, 1]), part_labels, torch.tensor([0, 1]))
    before = [p.detach().clone() for p in model.parameters()]
    loss = task.loss(*task.predict(model, batch))
    loss.backward()
    optimizer.step()
    scheduler.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config_trains(compose, path):
    train_one_step(compose(path))


@pytest.mark.parametrize(
    ("name", "baseline", "train_on_val"),
    [
        *(
            (f"modelnet40_{variant}", "modelnet40_pointmlp", ())
            for variant in ("naive", "grouping", "hierarchy")
        ),
        *(
            (
                f"shapenetpart_{variant}",
                "shapenetpart_pointmlp",
                ("data.trainval=true", "train.select_on=null"),
            )
            for variant in ("naive", "encdec")
        ),
    ],
)
def test_a_variant_of_the_paper_says_how_to_train_it_like_pointmlp(compose, name, baseline, train_on_val):
    path = CFGS / f"{name}.yaml"
    (said,) = (x for x in path.read_text().splitlines() if x.startswith("#   "))
    overrides = said.removeprefix("#   ").split()
    config, theirs = compose(path, *overrides), compose(CFGS / f"{baseline}.yaml", *train_on_val)
    for key in ("model", "name"):
        del theirs[key]
    assert {key: config[key] for key in theirs} == theirs
    # and every word of it is needed
    for i in range(len(overrides)):
        fewer = compose(path, *overrides[:i], *overrides[i + 1 :])
        assert {key: fewer[key] for key in theirs} != theirs, overrides[i]
    train_one_step(config)


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_option_is_called_as_it_should_be(compose, path):
    """Every option can be chosen in a config, and every key in it is one that its call takes."""
    # a config that says nothing but which options it takes
    config = compose(CFGS / "modelnet40_naive.yaml", f"{path.parent.name}={path.stem}")
    for node in ("data", "augment", "model", "task"):
        check(config[node], node)
    check(config["optim"], "optim")
    build_settings(TrainSettings, config["train"], "train")


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_every_setting_of_a_shipped_search_trains(compose, path):
    search = read_search(path, config_root=CFGS)
    for overrides in search.settings.values():
        train_one_step(compose(search.base, *search.common, *overrides))


def test_no_shipped_config_escapes_these_tests():
    (shipped,) = test_shipped_config_trains.pytestmark
    (options,) = test_shipped_option_is_called_as_it_should_be.pytestmark
    (searches,) = test_every_setting_of_a_shipped_search_trains.pytestmark
    counted = len(shipped.args[1]) + len(options.args[1]) + len(searches.args[1])
    files = [p for p in CFGS.rglob("*") if p.suffix in (".yaml", ".yml")]
    assert counted == len(files) > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_saved_config_is_read_back_unchanged(compose, path):
    config = compose(path)
    assert from_yaml(to_yaml(config)) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_shipped_config_selects_on_the_test_split(compose, path):
    assert compose(path)["train"]["select_on"] == "val"
    assert compose(path)["name"] == path.stem


def area(*, width: int, height: float = 1.0, unit: str | None = None, sides: list | None = None):
    """Stand in for a callable that a config names."""
    if width < 0:
        raise ValueError(f"width: expected at least 0, got {width}.")
    return width * height, unit


class Foreign:
    """Stand in for a class whose annotations name what only a type checker imports."""

    def __init__(self, width: "NowhereToBeFound", height: int = 1):  # noqa: F821
        self.size = (width, height)


HERE = {"_target_": f"{__name__}.area"}


@pytest.mark.parametrize(
    ("node", "error", "message"),
    [
        (
            {"wdth": 1},
            ValueError,
            r"^box: unknown key 'wdth' for .*area; expected one of height, sides, unit, width",
        ),
        ({"width": "3"}, TypeError, r"^box\.width: expected a whole number, got '3'"),
        ({"width": 2.5}, TypeError, r"^box\.width: expected a whole number, got 2\.5"),
        ({"width": True}, TypeError, r"^box\.width: expected a whole number, got True"),
        ({"width": 1, "height": "x"}, TypeError, r"^box\.height: expected a number, got 'x'"),
        ({"width": 1, "unit": 3}, TypeError, r"^box\.unit: expected a string or null, got 3"),
        ({"width": -1}, ValueError, r"^box: width: expected at least 0, got -1"),
    ],
)
def test_a_node_is_checked_against_its_call(node, error, message):
    with pytest.raises(error, match=message):
        build({**HERE, **node}, "box")


@pytest.mark.parametrize("annotation", ["NowhereToBeFound", "sys.nowhere_to_be_found", "int[3]", "a b"])
def test_annotations_that_nobody_can_resolve_are_not_checked(monkeypatch, annotation):
    monkeypatch.setitem(Foreign.__init__.__annotations__, "width", annotation)
    assert build({"_target_": f"{__name__}.Foreign", "width": "3"}).size == ("3", 1)
    with pytest.raises(
        ValueError, match=r"^box: unknown key 'wdth' for .*Foreign; expected one of height, width"
    ):
        build({"_target_": f"{__name__}.Foreign", "wdth": 3}, "box")


def test_a_node_stands_where_its_call_gives_the_value():
    three = {"_target_": "fractions.Fraction", "numerator": 3}
    assert build({**HERE, "width": three}, "box") == (3, None)


@pytest.mark.parametrize(
    "target", ["bixt3d.nothing", "bixt3d.models.BiXT", "no_such_package.thing", "bixt3d."]
)
def test_a_target_that_does_not_exist(target):
    with pytest.raises(ValueError, match=r"^box\._target_: '.*' cannot be imported"):
        build({"_target_": target}, "box")


@pytest.mark.parametrize("target", [3, None, "torch.nn"])
def test_a_target_that_cannot_be_called(target):
    with pytest.raises(ValueError, match=r"^box\._target_: "):
        build({"_target_": target}, "box")


def test_a_target_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "of_this_folder.py").write_text("def double(x): return 2 * x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    for _ in range(2):
        assert build({"_target_": "of_this_folder.double", "x": 3}) == 6
    assert sys.path.count(str(tmp_path)) == 1


def test_a_node_without_target():
    with pytest.raises(ValueError, match=r"^data: expected a node with _target_, got 'modelnet40'"):
        build("modelnet40", "data")
    with pytest.raises(ValueError, match=r"^data: expected a node with _target_, got the keys root"):
        build({"root": "x"}, "data")


def test_nested_nodes_are_built_and_named():
    node = {
        "_target_": "torch.nn.Sequential",
        "_args_": [{"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}],
    }
    assert build(node)[0].weight.shape == (3, 2)
    node["_args_"][0]["out_feature"] = 1
    with pytest.raises(ValueError, match=r"^net\._args_\[0\]: unknown key 'out_feature'"):
        build(node, "net")


def test_a_whole_number_is_a_number_and_partial_leaves_the_rest():
    assert build({**HERE, "width": 2, "height": 3}) == (6, None)
    half = build({**HERE, "_partial_": True, "height": 3})
    assert isinstance(half, partial)
    assert half(width=2) == (6, None)
    assert build({**HERE, "width": 2}, height=5.0) == (10.0, None)


def test_what_partial_leaves_names_the_node_when_it_is_called():
    half = build({**HERE, "_partial_": True, "height": 3}, "box")
    with pytest.raises(ValueError, match=r"^box: width: expected at least 0, got -1"):
        half(width=-1)
    again = pickle.loads(pickle.dumps(half))
    assert (again.func, again.keywords) == (half.func, {"height": 3})
    assert list(inspect.signature(again).parameters) == ["width", "height", "unit", "sides"]
    with pytest.raises(ValueError, match=r"^box: width"):
        again(width=-1)


def test_settings_are_checked_like_a_node():
    with pytest.raises(
        ValueError, match=r"^train: unknown key 'epocs'.*expected one of accelerator, .*epochs"
    ):
        build_settings(TrainSettings, {"epocs": 3}, "train")
    with pytest.raises(TypeError, match=r"^train\.epochs: expected a whole number, got 'x'"):
        build_settings(TrainSettings, {"epochs": "x"}, "train")
    with pytest.raises(ValueError, match=r"^train\.batch_size: expected at least 1, got 0"):
        build_settings(TrainSettings, {"batch_size": 0}, "train")
    with pytest.raises(TypeError, match=r"^train: expected keys with values, got 3"):
        build_settings(TrainSettings, 3, "train")


def test_settings_of_the_default_config_are_all_settings(compose):
    assert set(compose(CFGS / "quickstart.yaml")["train"]) == set(TrainSettings.__dataclass_fields__)


def test_override_changes_what_exists_and_nothing_else():
    config = {"data": {"root": "a", "n": 1}, "train": {"epochs": 2}}
    changed = override(config, ["data.root=b", "train.epochs=5"])
    assert changed == {"data": {"root": "b", "n": 1}, "train": {"epochs": 5}}
    assert config["data"]["root"] == "a"
    with pytest.raises(ValueError, match=r"data\.rot: unknown key; expected one of n, root"):
        override(config, ["data.rot=b"])
    with pytest.raises(ValueError, match=r"argument 'data\.root': expected key=value"):
        override(config, ["data.root"])
    with pytest.raises(ValueError, match=r"^argument data\.n=\[3: "):
        override(config, ["data.n=[3"])


def test_override_does_not_need_what_a_node_calls():
    assert override({"data": {"_target_": "no.such", "n": 1}}, ["data.n=2"])["data"]["n"] == 2


def test_override_takes_values_not_groups():
    config = {"data": {**HERE, "width": 1}, "list": [{"a": 1}]}
    with pytest.raises(ValueError, match=r"^data: .* take values, not groups; .* such as data\.width=VALUE"):
        override(config, ["data=modelnet40"])
    assert override(config, ["list.0.a=2"])["list"] == [{"a": 2}]
    with pytest.raises(ValueError, match=r"list\[3\]: there is no such entry; the list has 1"):
        override(config, ["list.3.a=2"])


@pytest.mark.parametrize("plus", ["", "+"])
def test_override_adds_what_the_call_of_the_node_takes(plus):
    config = {"data": {**HERE, "width": 1}, "train": {"epochs": 2}}
    assert build(override(config, [f"{plus}data.height=3"])["data"]) == (3, None)
    for key in ("data.hight", "train.hight", "hight"):
        with pytest.raises(ValueError, match=f"{key}: unknown key; expected one of"):
            override(config, [f"{plus}{key}=3"])


def test_models_that_cannot_take_the_data_are_refused():
    class Takes(nn.Module):
        def __init__(self, min_points, in_channels):
            super().__init__()
            self.min_points, self.in_channels = min_points, in_channels
            self.tokenizer = nn.Identity()

    check_fit(Takes(64, 3), Shapes(num_points=64))
    check_fit(Takes(64, 6), Shapes(num_points=64, normals=True))
    with pytest.raises(
        ValueError, match=r"^data\.num_points: .* at least 65 points .*, got 64; take more points"
    ):
        check_fit(Takes(65, 3), Shapes(num_points=64))
    with pytest.raises(ValueError, match=r"takes 3 channels, the data has 6; .*data\.normals=false"):
        check_fit(Takes(64, 3), Shapes(num_points=64, normals=True))
    with pytest.raises(ValueError, match=r"takes 6 channels, the data has 3; .*data\.normals=true"):
        check_fit(Takes(64, 6), Shapes(num_points=64))
