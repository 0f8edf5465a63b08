"""What a run records of itself, and that its settings reach what they set."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from bixt3d.config import from_yaml
from bixt3d.training import experiment

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ("train.measure_test=false", "train.select_on=null", "train.max_steps=1")


def weights(folder):
    return torch.load(folder / "last.pt", weights_only=True)


def test_results_say_when_and_by_what_they_were_chosen(tiny_run):
    results = json.loads((tiny_run / "results.json").read_text())
    progress = weights(tiny_run)["progress"]
    assert (results["steps"], results["epochs"], results["seed"], results["clouds"]) == (16, 4, 3, 41)
    assert (results["split"], results["select_on"]) == ("test", "val")
    assert results["selected_epoch"] == progress["best_epoch"]
    assert results["minutes"] == pytest.approx(progress["seconds"] / 60, abs=0.006)
    assert from_yaml((tiny_run / "config.yaml").read_text()) == from_yaml(weights(tiny_run)["config"])


def test_a_run_that_selects_nothing_reports_its_last_weights(tiny, tmp_path, capsys):
    options = ("train.select_on=null", "train.max_steps=1", "train.seed=3")
    (tmp_path / "run").mkdir()  # an empty folder is as good as none
    folder = experiment.train(tiny(f"run_dir={tmp_path / 'run'}", *options))
    results = json.loads((folder / "results.json").read_text())
    assert set(results["results"]) == {"last"}
    assert (results["seed"], results["selected_epoch"], results["steps"]) == (3, None, 1)
    out = capsys.readouterr().out
    assert f"next:             python scripts/evaluate.py {folder / 'last.pt'} split=test" in out
    assert "best.pt" not in out
    assert not (folder / "best.pt").exists()


def test_the_split_that_selects_is_the_one_asked_for(tiny, tmp_path, capsys):
    options = ("train.select_on=test", "train.max_steps=2", "train.measure_test=true")
    folder = experiment.train(tiny(f"run_dir={tmp_path / 'run'}", *options))
    logged = (folder / "selection.csv").read_text().splitlines()
    row = dict(zip(logged[0].split(","), logged[1].split(","), strict=True))
    measured = json.loads((folder / "results.json").read_text())["results"]["selected"]
    assert float(row["OA"]) == pytest.approx(measured["OA"], rel=1e-5)
    assert "WARNING: selected on the split it is measured on" in capsys.readouterr().out


def test_weights_are_drawn_from_the_seed_and_decayed_as_asked(tiny, tmp_path):
    still = (*QUICK, "optim.optimizer.lr=0", "optim.schedule.min_lr=0", "train.ema_decay=null")
    runs = {
        name: weights(experiment.train(tiny(f"run_dir={tmp_path / name}", *still, *more)))
        for name, more in (("a", ()), ("b", ("train.seed=1", "optim.decay_all=true")))
    }
    torch.manual_seed(5)  # what was drawn before is no matter
    again = weights(experiment.train(tiny(f"run_dir={tmp_path / 'again'}", *still)))
    first, other = runs["a"]["model"], runs["b"]["model"]
    assert all(torch.equal(first[key], again["model"][key]) for key in first)
    assert not torch.equal(first["encoder.latents"], other["encoder.latents"])

    def decayed(content):
        groups = content["resume"]["optimizer"]["param_groups"]
        counts = [(len(group["params"]), group["weight_decay"] > 0) for group in groups]
        return sum(n for n, decays in counts if decays), sum(n for n, _ in counts)

    some, all_of_them = decayed(runs["a"])
    assert 0 < some < all_of_them
    assert decayed(runs["b"]) == (all_of_them, all_of_them)


def test_a_continuation_on_another_machine_is_recorded_beside_the_first(tiny, tmp_path):
    folder = experiment.train(tiny(f"run_dir={tmp_path / 'run'}", *QUICK))
    first = (folder / "environment.json").read_text()
    more = ("train.measure_test=false", "train.select_on=null", "train.max_steps=2", "train.targets=[50]")
    experiment.train(tiny(f"train.resume={folder}", *more))
    assert (folder / "environment.json").read_text() == first
    assert json.loads((folder / "environment_step1.json").read_text())["python"]
    assert weights(folder)["progress"]["step"] == 2


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_step_is_logged_with_the_learning_rate_it_used(tiny_run):
    """A warm-up of 4 steps from 1/5 of the peak of 0.02, then half a cosine over 12; by hand."""
    lr = [float(row["lr"]) for row in rows(tiny_run / "train.csv")]
    least = from_yaml((tiny_run / "config.yaml").read_text())["optim"]["schedule"]["min_lr"]
    cosine = [least + (0.02 - least) * (1 + math.cos(math.pi * i / 12)) / 2 for i in range(12)]
    assert lr == pytest.approx([0.004, 0.008, 0.012, 0.016, *cosine], rel=1e-5)


def test_the_logs_count_epochs_alike(tiny_run):
    epoch = {row["step"]: row["epoch"] for row in rows(tiny_run / "train.csv")}
    assert list(epoch.values()) == [str(1 + i // 4) for i in range(16)]
    assert all(row["epoch"] == epoch[row["step"]] for row in rows(tiny_run / "selection.csv"))


def test_a_run_that_ends_within_an_epoch_selects_in_that_epoch(tiny, tmp_path, capsys):
    folder = experiment.train(tiny(f"run_dir={tmp_path / 'run'}", "train.max_steps=5"))
    assert [row["epoch"] for row in rows(folder / "selection.csv")] == ["1", "2"]
    assert "epoch   2 · step      5" in capsys.readouterr().out
    assert json.loads((folder / "results.json").read_text())["selected_epoch"] in (1, 2)


class Nonsense(torch.nn.Module):
    """A model that fails at its first batch."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = torch.nn.Linear(4, num_classes)

    def forward(self, points):
        return self.head(points)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("augment=scale_shift_wolf", "data.normals=true", "model.tokenizer.in_channels=6"),
            "does not update normals",
        ),
        (
            ("augment=scale_shift_mix", "task=part_segmentation", "model=bixt_seg_naive"),
            "mixing clouds is for classification",
        ),
        (("model._target_=test_experiment.Nonsense", "~model.tokenizer", "~model.encoder"), "shapes cannot"),
        (("train.accumulate=100",), r"^train\.accumulate: expected at most 4, .* got 100"),
    ],
)
def test_what_a_batch_would_refuse_leaves_no_folder(tiny, tmp_path, options, said, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    with pytest.raises((ValueError, RuntimeError), match=said):
        experiment.train(tiny(f"run_dir={tmp_path / 'run'}", *options))
    assert not (tmp_path / "run").exists()


def test_the_batch_that_is_tried_changes_nothing(tiny, tmp_path, monkeypatch):
    """The run is the same with and without it, running statistics of batch norms included."""
    options = ("model=bixt_grouping", "model.encoder.refinement.num_neighbors=4", *QUICK)
    tried = weights(experiment.train(tiny(f"run_dir={tmp_path / 'a'}", *options)))
    monkeypatch.setattr(experiment, "try_batch", lambda *_: None)
    untried = weights(experiment.train(tiny(f"run_dir={tmp_path / 'b'}", *options)))
    assert any(name.endswith("running_mean") for name in tried["model"])
    for name, value in tried["resume"]["model"].items():
        assert torch.equal(value, untried["resume"]["model"][name]), name


@pytest.mark.parametrize("figure", ["OA", "mAcc"])
def test_the_figure_that_selects_is_a_setting(tiny, tmp_path, figure):
    options = (f"+task.selects={figure}", "+task.class_weights=balanced", "train.measure_test=false")
    folder = experiment.train(tiny(f"run_dir={tmp_path / 'run'}", *options))
    with (folder / "selection.csv").open(newline="") as file:
        looks = [float(row[figure]) for row in csv.DictReader(file)]
    best = torch.load(folder / "best.pt", weights_only=True)
    assert best["progress"]["best"] == pytest.approx(max(looks), rel=1e-5)
    assert best["selection"][figure] == best["progress"]["best"]


@pytest.mark.parametrize(("epochs", "said"), [(2, True), (50, False)])
def test_few_steps_in_all_are_said_at_the_start(tiny, tmp_path, capsys, epochs, said):
    """Four steps an epoch; 200 are enough."""
    experiment.train(tiny(f"run_dir={tmp_path / 'run'}", *QUICK, f"train.epochs={epochs}"))
    out = capsys.readouterr().out
    assert ("hint: 8 steps in all" in out and "train.epochs=50 " in out) is said
    assert ("steps in all" in out) is said
    experiment.train(tiny(f"train.resume={tmp_path / 'run'}", *QUICK, f"train.epochs={epochs}"))
    assert "steps in all" not in capsys.readouterr().out, "a continuation cannot follow the advice"
