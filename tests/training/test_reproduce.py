"""Reproducing in stretches: every command once, in order, continued where it was cut; figures from files alone."""

import json
import runpy

import pytest
from places import ROOT

SCRIPT = ROOT / "scripts" / "reproduce_modelnet40.py"


@pytest.fixture
def reproduce(tmp_path, monkeypatch):
    """Run the script's main with stand-ins for the commands, which leave the files that those would leave."""
    monkeypatch.chdir(ROOT)
    space = runpy.run_path(str(SCRIPT))
    calls = []

    def run(*arguments, statuses=()):
        calls.clear()
        pending = list(statuses)

        def call(command):
            calls.append(command)
            status = pending.pop(0) if pending else 0
            words = dict(w.partition("=")[::2] for w in command)
            if "train_cls" in command[0]:
                folder = tmp_path / "out" / words["run_dir"].rpartition("/")[2]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "last.pt").touch()
                if status == 0:
                    oa = 90 + int(words["train.seed"])
                    figures = {
                        "last": {"OA": oa, "mAcc": oa - 3},
                        "selected": {"OA": oa - 0.5, "mAcc": oa - 4},
                    }
                    facts = {"results": figures, "seed": int(words["train.seed"]), "selected_epoch": 7}
                    facts |= {"minutes": 12.5, "minutes_to": {"89": 3.25, "93": None}}
                    (folder / "results.json").write_text(json.dumps(facts))
            elif "evaluate" in command[0] and status == 0:
                folder = ROOT / words["out"]
                folder.mkdir()
                (folder / "robustness.json").write_text(
                    json.dumps({"mean_over_severities": {"mean": {"OA": 71.5}}})
                )
            elif "publish" in command[0] and status == 0:
                (tmp_path / "out" / "weights").mkdir(exist_ok=True)
                (tmp_path / "out" / "weights" / f"{command[command.index('--name') + 1]}.safetensors").touch()
            return status

        space["run"].__globals__["call"] = call
        fixed = ["--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
        return space["main"]([*fixed, *map(str, arguments)]), [c.copy() for c in calls]

    return run


def scripts(calls):
    return [command[0].rpartition("/")[2].removesuffix(".py") for command in calls]


def test_all_commands_once_and_then_nothing(reproduce, tmp_path, capsys):
    status, calls = reproduce("--variant", "naive", "hierarchy", "--seeds", 0, 1)
    assert status == 0
    assert scripts(calls) == ["train_cls", "evaluate", "publish"] * 4
    assert reproduce("--variant", "naive", "hierarchy", "--seeds", 0, 1)[1] == []
    table = (tmp_path / "out" / "results.md").read_text()
    assert table in capsys.readouterr().out
    row = "| naive | 1 | 91.00 / 88.00 | 90.50 / 87.00 | 7 | 12.5 | 89: 3.2, 93: never | 71.50 |"
    assert row in table
    assert "- hierarchy, selected, 2 seeds: OA 90.00 ± 0.71, mAcc 86.50 ± 0.71" in table


def test_a_cut_training_is_resumed_and_a_failed_one_is_not_passed_over(reproduce, tmp_path):
    status, calls = reproduce("--variant", "naive", "--minutes", 9, statuses=[143])
    assert (status, len(calls)) == (143, 1)
    assert "train.resume=auto" in calls[0]
    assert "train.max_minutes=8.00" in calls[0]
    status, calls = reproduce("--variant", "naive", statuses=[1])
    assert (status, len(calls)) == (1, 1)
    assert "train.resume=auto" in calls[0]
    assert not [word for word in calls[0] if word.startswith("train.max_minutes")]
    status, calls = reproduce("--variant", "naive", statuses=[0, 1])
    assert (status, scripts(calls)) == (1, ["train_cls", "evaluate"])
    status, calls = reproduce("--variant", "naive", statuses=[0, 1])
    assert (status, scripts(calls)) == (0, ["evaluate", "publish"]), (
        "weights too large for a file end nothing"
    )


def test_time_that_is_up_starts_nothing(reproduce, monkeypatch):
    clock = iter([0.0, *[500.0] * 20])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    status, calls = reproduce("--minutes", 8)
    assert (status, calls) == (143, [])


def test_a_dry_run_prints_what_is_left(reproduce, capsys, tmp_path):
    status, calls = reproduce("--dry-run", "--variant", "speedrun", "--seeds", 3, "train.epochs=2")
    assert (status, calls) == (0, [])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == [
        f"scripts/{s}.py" for s in ("train_cls", "evaluate", "publish")
    ]
    assert "train.epochs=2" in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("variant", ["naive", "grouping", "hierarchy", "speedrun"])
def test_the_training_command_composes(reproduce, compose, variant):
    _, calls = reproduce("--variant", variant, "--minutes", 9, "optim.optimizer.lr=0.5")
    _, path, *overrides = calls[0]
    config = compose(ROOT / path, *overrides)
    assert config["name"] == f"modelnet40_{variant}"
    assert config["train"]["precision"] == "bf16-mixed"
    assert config["train"]["max_minutes"] == 8.0
    assert config["optim"]["optimizer"]["lr"] == 0.5
    assert config["train"]["epochs"] == (60 if variant == "speedrun" else 300)


def test_mistakes(reproduce, tmp_path):
    for arguments, said in (
        (("--minutes", 0.5), "--minutes: expected more than 2, got 0.5"),
        (
            ("--data-root", tmp_path / "no"),
            "no: no such folder; fetch the data with 'python scripts/prepare_data.py",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            reproduce(*arguments)
        assert said in str(ended.value.code)


def test_sizes_made_for_a_cpu_train_there_unless_told_otherwise(reproduce):
    def regimes(*options):
        return [
            c[2]
            for c in reproduce("--variant", "cpu_hierarchy", "speedrun", *options)[1]
            if "train_cls" in c[0]
        ]

    assert regimes() == ["train=default", "train=gpu"]
    assert regimes("--seeds", 1, "--train", "default") == ["train=default", "train=default"]
