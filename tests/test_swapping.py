"""A shipped experiment takes any model and optimiser of cfgs/ that fits its task: what comes is what the name says."""

from functools import cache, partial
from types import SimpleNamespace

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from places import ROOT
from torch import nn

from bixt3d.config import build, read_yaml
from bixt3d.training.assembly import build_task, check_fit

CFGS = ROOT / "cfgs"
EXPERIMENTS = sorted(path.stem for path in CFGS.glob("*.yaml"))
MODELS = sorted(path.stem for path in CFGS.glob("model/*.yaml"))
OPTIMS = sorted(path.stem for path in CFGS.glob("optim/*.yaml"))
# what an experiment may say itself; the rest it takes from the groups, which are then whole
BODY = {"data", "defaults", "name", "run_dir", "task", "train"}
CLASSES, PARTS = ("bag", "cap"), ("bag/body", "bag/strap", "cap/crown")


@pytest.fixture(scope="module")
def composed():
    """Compose an experiment, or an option of a group alone, with overrides."""
    with hydra.initialize_config_dir(config_dir=str(CFGS), version_base="1.3"):

        @cache
        def made(name, *overrides):
            return OmegaConf.to_container(hydra.compose(name, overrides=list(overrides)), resolve=True)

        yield made


@cache
def needs(composed, name, experiment):
    """What a model asks of the data; it is built without numbers, for the task of the experiment."""
    arguments = build_task(composed(experiment), CLASSES, PARTS).model_arguments()
    with torch.device("meta"):
        model = build(group(composed, "model", name), "model", **arguments)
    inside = "tokenizer" if hasattr(model, "tokenizer") else "encoder"
    return SimpleNamespace(in_channels=model.in_channels, min_points=model.min_points, **{inside: None})


def group(composed, kind, name):
    return composed(f"{kind}/{name}")[kind]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_writes_into_no_model_and_no_optimiser(experiment):
    assert set(read_yaml(CFGS / f"{experiment}.yaml")) <= BODY


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_what_is_swapped_in_is_what_the_name_says(composed, experiment):
    own, turn = composed(experiment), EXPERIMENTS.index(experiment)
    model, optim = MODELS[turn % len(MODELS)], OPTIMS[turn % len(OPTIMS)]
    swapped = composed(experiment, f"model={model}", f"optim={optim}")
    assert swapped == {
        **own,
        "model": group(composed, "model", model),
        "optim": group(composed, "optim", optim),
    }


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_model_of_the_task_fits_the_data_or_says_what_to_do(composed, experiment):
    own = composed(experiment)
    parts = own["task"]["_target_"].endswith("PartSegmentation")
    sees = SimpleNamespace(num_points=own["data"]["num_points"], normals=own["data"].get("normals", False))
    for name in (name for name in MODELS if ("_seg" in name) == parts):
        asked = needs(composed, name, "shapenetpart_naive" if parts else "quickstart")
        if asked.in_channels == 3 + 3 * sees.normals and asked.min_points <= sees.num_points:
            check_fit(asked, sees)
            continue
        assert parts, "every classifier fits"
        assert group(composed, "model", name) != own["model"]
        with pytest.raises(ValueError, match=r"^(data\.num_points|model\.\w+\.in_channels): .*; (take|set) "):
            check_fit(asked, sees)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_optimiser_fits_the_run_or_says_what_to_do(composed, experiment):
    epochs = composed(experiment)["train"]["epochs"]
    for name in OPTIMS:
        node = group(composed, "optim", name)
        optimizer = build(node["optimizer"], "optim.optimizer")([nn.Parameter(torch.zeros(1))])
        schedule = partial(build(node["schedule"], "optim.schedule"), optimizer, steps_per_epoch=10)
        if node["schedule"].get("warmup_epochs", 0) < epochs:
            schedule(epochs=epochs)
            continue
        with pytest.raises(
            ValueError, match=r"^optim\.schedule: warmup_epochs: .*shorten .* or train longer"
        ):
            schedule(epochs=epochs)


def test_no_augmentation_leaves_clouds_as_they_are(composed):
    points = torch.rand(2, 5, 3)
    assert torch.equal(build(composed("quickstart", "augment=none")["augment"], "augment")(points), points)
