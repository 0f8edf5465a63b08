"""docs/extending.md: its examples run as they stand, and what does not fit is said in one sentence."""

import re
import runpy
import shlex
import sys

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from places import ROOT
from torch import nn

from bixt3d.checkpoint import load_checkpoint
from bixt3d.datasets import CloudLoader, PointClouds, Shapes
from bixt3d.datasets.transforms import Compose, Jitter
from bixt3d.evaluation.evaluate import evaluate_checkpoint
from bixt3d.tasks import Classification
from bixt3d.training.assembly import build_dataset, build_model, build_task, check_fit
from bixt3d.training.experiment import train

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^python scripts/train_cls\.py .*", PAGE, re.MULTILINE)
TWO_STEPS = [
    "train.max_steps=2",
    "train.batch_size=8",
    "train.log_every=1",
    "train.accelerator=cpu",
    "train.keep_freed_memory=false",
]
SMALL = {
    "mynet.yaml": ["data.num_train=16", "data.num_val=12", "data.num_test=12"],
    "mydata.yaml": ["data.count=16"],
    "cfgs/quickstart.yaml": ["data.num_train=16", "data.num_val=12", "data.num_test=12"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files of the page, where the command line is started."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cfgs").symlink_to(ROOT / "cfgs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    yield tmp_path
    GlobalHydra.instance().clear()
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_page_has_an_example_of_each():
    assert sorted(FILES) == [
        *("mydata.py", "mydata.yaml", "mygroups.py", "myloss.py", "mynet.py", "mynet.yaml"),
        *("mynoise.py", "myprobe.py", "myschedule.py", "mytokens.py"),
    ]
    started = {shlex.split(command)[2] for command in COMMANDS}
    assert started == set(SMALL)
    assert len(COMMANDS) == 8


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_trains_and_is_measured(folder, monkeypatch, one_thread, command):
    script, config, *overrides = shlex.split(command)[1:]
    arguments = [config, *overrides, *SMALL[config], *TWO_STEPS, f"run_dir={folder / 'run'}"]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    GlobalHydra.instance().clear()
    runpy.run_path(str(ROOT / script), run_name="__main__")
    trained = (folder / "run" / "results.json").read_text()
    assert '"steps": 2' in trained
    assert 0 <= evaluate_checkpoint(folder / "run", trust_code=True).summary()["OA"] <= 100


def test_layer_wise_rates_and_a_frozen_body(folder, compose, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    from mygroups import layer_wise
    from myprobe import Probe

    probe = ("model._target_=myprobe.Probe", "model.encoder.depth=2")
    config = compose(ROOT / "cfgs/quickstart.yaml", *probe)
    model = build_model(config, build_task(config, "ab"))
    assert isinstance(model.train(), Probe)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    assert not model.encoder.training
    assert model.dropout.training
    rates, held = {}, []
    names = {p: name for name, p in model.requires_grad_(True).named_parameters()}
    for group in layer_wise(model, lr=1.0, factor=0.5):
        rates |= {names[p]: group["lr"] for p in group["params"]}
        held += group["params"]
        assert all(p.ndim < 2 for p in group["params"] if "weight_decay" in group and p.shape[0] > 1)
    assert sorted(names[p] for p in held) == sorted(names.values())
    assert rates["head.weight"] == rates["encoder.latents"] == rates["norm.bias"] == 1
    assert rates["encoder.blocks.1.cross.attention.query.weight"] == 0.5
    assert rates["encoder.blocks.0.cross.token_norm.weight"] == 0.25
    assert rates["tokenizer.proj.weight"] == 0.125


def config_of(target, **keys):
    return {
        "model": {"_target_": f"{__name__}.{target}", **keys},
        "task": {"_target_": "bixt3d.tasks.Classification"},
    }


class Plain(nn.Module):
    """A model that says nothing of itself."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.head = nn.Linear(3, num_classes)


class Says(Plain):
    in_channels, min_points, min_batch_size = 6, 40, 3


def no_module(num_classes: int):
    return num_classes


def test_what_a_model_does_not_say_is_assumed():
    for target, expected in (("Plain", (3, 1, 1)), ("Says", (6, 40, 3))):
        model = build_model(config_of(target), Classification("ab"))
        assert (model.in_channels, model.min_points, model.min_batch_size) == expected
    with pytest.raises(TypeError, match=r"^model: expected a torch\.nn\.Module, .*no_module gives a int"):
        build_model(config_of("no_module"), Classification("ab"))
    with pytest.raises(ValueError, match=r"^model: its in_channels is 3, the data has 6 channels"):
        check_fit(build_model(config_of("Plain"), Classification("ab")), Shapes(num_points=64, normals=True))


def test_what_a_data_set_does_not_say():
    class Mine:
        num_points = 64

    model = build_model(config_of("Plain"), Classification("ab"))
    check_fit(model, Mine())
    with pytest.raises(ValueError, match=r"^data: object has no num_points"):
        check_fit(model, object())


def clouds(part_labels=True):
    return PointClouds(
        points=np.ones((4, 8, 3), dtype=np.float32),
        labels=np.array([0, 1, 0, 1]),
        classes=("a", "b"),
        names=tuple("wxyz"),
        part_labels=np.tile(np.arange(8) % 2, (4, 1)) if part_labels else None,
        parts=("all/0", "all/1") if part_labels else (),
    )


def twice(points, part_labels=None, *, generator=None):
    return 2 * points if part_labels is None else (2 * points, part_labels)


@pytest.mark.parametrize("part_labels", [True, False])
@pytest.mark.parametrize("transform", [twice, Compose([twice]), Compose([Jitter(std=0), twice])])
def test_a_plain_callable_augments(transform, part_labels):
    loader = CloudLoader(clouds(part_labels), batch_size=4, num_points=8, transform=transform)
    (batch,) = loader.epoch(0)
    assert torch.equal(batch.points, torch.full((4, 8, 3), 2.0))
    assert batch.targets is None
    assert (batch.part_labels is not None) == part_labels
    assert Classification(("a", "b")).predict(lambda points: points, batch)[0] is batch.points


@pytest.mark.parametrize(
    ("transform", "error", "said"),
    [
        (
            lambda points: points,
            TypeError,
            r"^augment: expected a callable \(points, part_labels=None, .*<lambda>",
        ),
        (nn.Identity(), TypeError, r"^augment: expected a callable .* Identity cannot be called this way"),
        (3, TypeError, r"^augment: expected a callable .* int cannot be called this way"),
        (
            lambda p, q=None, *, generator=None: p,
            TypeError,
            r"returned Tensor; expected points and part labels",
        ),
        (
            lambda p, q=None, *, generator=None: None,
            TypeError,
            r"returned NoneType; expected points and part",
        ),
        (
            lambda p, q=None, *, generator=None: (p[:, :3], q),
            ValueError,
            r"\(4, 3, 3\) and \(4, 8\) for points",
        ),
        (
            lambda p, q=None, *, generator=None: (p[:2], q[:2]),
            ValueError,
            r"expected as many clouds and channels",
        ),
    ],
)
def test_an_augmentation_that_cannot_be_one(transform, error, said):
    with pytest.raises(error, match=said):
        list(CloudLoader(clouds(), batch_size=4, num_points=8, transform=transform).epoch(0))


def test_clouds_in_another_form():
    with pytest.raises(
        TypeError, match=r"^data: expected bixt3d\.datasets\.PointClouds from load\(split\), got tuple"
    ):
        CloudLoader((np.ones((4, 8, 3)), [0, 1, 0, 1]), batch_size=4, num_points=8)


def nameless(root: str = ""):
    return object()


def test_a_data_set_has_to_say_its_classes():
    with pytest.raises(ValueError, match=r"^data: object has no classes; expected their names"):
        build_dataset({"data": {"_target_": f"{__name__}.nameless"}})


class Learns(Classification):
    """A task with a temperature."""

    def __init__(self, classes, parts=(), *, label_smoothing: float = 0.0, frozen: bool = False):
        super().__init__(classes, parts, label_smoothing=label_smoothing)
        self.scale = nn.Parameter(torch.ones(()), requires_grad=not frozen)


class LearnsInside(nn.Module, Learns):
    """The same as a module."""

    def __init__(self, classes, parts=(), *, label_smoothing: float = 0.0, frozen: bool = False):
        nn.Module.__init__(self)
        Learns.__init__(self, classes, parts, label_smoothing=label_smoothing, frozen=frozen)


@pytest.mark.parametrize("task", ["Learns", "LearnsInside"])
def test_a_task_that_would_learn_is_refused(tiny, one_thread, tmp_path, task):
    options = (f"task._target_={__name__}.{task}", f"run_dir={tmp_path / 'run'}", "train.max_steps=1")
    with pytest.raises(
        ValueError, match=rf"^task: {task} holds parameters to learn \(scale\), but only those of"
    ):
        train(tiny(*options))
    assert not (tmp_path / "run").exists()
    train(tiny(*options, "+task.frozen=true", "train.measure_test=false"))


def head_alone(model, *, lr: float = 0.5):
    return [{"params": list(model.head.parameters()), "lr": lr, "weight_decay": 0.25}]


def test_groups_of_ones_own(tiny, one_thread, tmp_path):
    groups = (f"+optim.groups._target_={__name__}.head_alone", "+optim.groups._partial_=true")
    options = (f"run_dir={tmp_path / 'run'}", "train.max_steps=2", "train.measure_test=false", *groups)
    with pytest.raises(ValueError, match=r"^optim\.decay_all: optim\.groups says by itself what decays"):
        train(tiny(*options, "optim.decay_all=true"))
    (group,) = load_checkpoint(train(tiny(*options)))["resume"]["optimizer"]["param_groups"]
    assert (group["initial_lr"], group["weight_decay"], len(group["params"])) == (0.5, 0.25, 2)
