"""What data/README.md says of a few dozen files: its command runs, and weights fit the configs it names for them."""

import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from places import ROOT

from bixt3d.checkpoint import load_checkpoint, load_matching_weights
from bixt3d.config import from_yaml
from bixt3d.tasks import Classification, PartSegmentation
from bixt3d.training.assembly import build_model
from bixt3d.training.transfer import changed_settings

PAGE = (ROOT / "data" / "README.md").read_text(encoding="utf-8").partition("### A few dozen files")[2]
ROWS = re.findall(r"^\| `(weights/\S+)` \| `([^`]+)`", PAGE, re.MULTILINE)


def test_the_command_trains_from_files_of_ones_own(call, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 2)):
        for name, shape in (("long", [9, 1, 1]), ("flat", [5, 5, 1])):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            for i in range(count):
                np.save(tmp_path / "mine" / split / name / f"{i}.npy", rng.normal(size=(300, 3)) * shape)
    command = re.search(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].replace("\\\n", "")
    python, script, *arguments = shlex.split(command)
    assert (python, script) == ("python", "scripts/train_cls.py")
    arguments = [a.replace("data.root=DIR", f"data.root={tmp_path / 'mine'}") for a in arguments]
    more = ("train.max_steps=1", f"run_dir={tmp_path / 'run'}", "train.accelerator=cpu")
    status, out, err = call("train_cls.py", *arguments, *more)
    assert status == 0, err
    assert "10 training clouds, 1 steps an epoch" in out
    assert "hint: 50 steps in all" in out
    assert "note:" not in out
    assert (tmp_path / "run" / "predictions.csv").read_text().count("test/") == 4


def test_every_file_of_weights_has_a_row():
    files = (ROOT / "weights").glob("*.safetensors")
    assert sorted(name for name, _ in ROWS) == sorted(f"weights/{path.name}" for path in files)


@pytest.mark.parametrize(("weights", "config"), ROWS, ids=[name for name, _ in ROWS])
def test_weights_fit_the_config_that_the_page_names(compose, weights, config):
    """All but the head is taken, and computes what it did."""
    path, *overrides = config.split()
    config = compose(ROOT / path, *overrides)
    given = load_checkpoint(ROOT / weights)
    classes, parts = given["classes"], given["parts"]
    task = PartSegmentation(classes, parts) if parts else Classification(classes)
    model = build_model(config, task)
    assert load_matching_weights(model, given["model"], weights) == []
    dataset = SimpleNamespace(classes=classes, parts=parts, num_points=config["data"]["num_points"])
    assert changed_settings(model, config, from_yaml(given["config"])["model"], dataset) == []
    other = build_model(config, PartSegmentation(["x"], ["x/a"]) if parts else Classification(["x", "y"]))
    anew = load_matching_weights(other, given["model"], weights)
    assert {name.split(".")[0] for name in anew} <= {"head", "category", "decoder"}
    assert len(anew) < 0.1 * len(given["model"])
