"""What a run records of itself, and that its settings reach what they set."""

import json
from datetime import datetime

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
    assert (results["steps"], results["epochs"], results["seed"], results["clouds"]) == (16, 4, 0, 41)
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


def test_runs_without_a_name_of_their_own_never_share_a_folder(tiny, tmp_path, monkeypatch):
    class Noon(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2, 12)

    monkeypatch.setattr(experiment, "datetime", Noon)
    monkeypatch.chdir(tmp_path)
    folders = [experiment.train(tiny(*QUICK)) for _ in range(2)]
    assert [str(folder) for folder in folders] == [
        "runs/tiny/2026-01-02_12-00-00",
        "runs/tiny/2026-01-02_12-00-00-2",
    ]


def test_a_continuation_on_another_machine_is_recorded_beside_the_first(tiny, tmp_path):
    folder = experiment.train(tiny(f"run_dir={tmp_path / 'run'}", *QUICK))
    first = (folder / "environment.json").read_text()
    more = ("train.measure_test=false", "train.select_on=null", "train.max_steps=2", "train.targets=[50]")
    experiment.train(tiny(f"train.resume={folder}", *more))
    assert (folder / "environment.json").read_text() == first
    assert json.loads((folder / "environment_step1.json").read_text())["python"]
    assert weights(folder)["progress"]["step"] == 2
