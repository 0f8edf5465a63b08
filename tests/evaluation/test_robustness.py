"""Robustness from a checkpoint: right figures, the same each time, and mistakes in one sentence."""

import csv
import json
import re
import runpy
from dataclasses import replace

import pytest
from places import ROOT

from bixt3d.datasets.corruptions import CORRUPTIONS
from bixt3d.evaluation.evaluate import evaluate_checkpoint, evaluate_robustness
from bixt3d.evaluation.robustness import RobustnessPlan, RobustnessResult
from bixt3d.training.experiment import train

CPU = "train.accelerator=cpu"


@pytest.fixture(scope="module")
def measured(tiny_run, one_thread, tmp_path_factory):
    out = tmp_path_factory.mktemp("robustness") / "new"
    plan = RobustnessPlan(tuple(CORRUPTIONS), (1, 5), (64, 48, 32, 16))
    return evaluate_robustness(tiny_run / "best.pt", plan, [CPU], out=out), out


def test_every_corruption_and_number_of_points_is_measured(measured, tiny_run, one_thread):
    result, _ = measured
    assert len(result.rows) == 9 * 2
    clean = evaluate_checkpoint(tiny_run / "best.pt", [CPU]).summary()
    assert result.clean == clean
    assert list(result.by_points) == [48, 32, 16]
    assert result.by_points[32] == clean, "as many points as in training"
    for count in (48, 16):
        alone = evaluate_checkpoint(tiny_run / "best.pt", [CPU, f"data.num_points={count}"])
        assert result.by_points[count] == alone.summary()
    assert result.refused == {64: "64 points: the clouds hold 48"}
    assert {row["corruption"]: row["points"] for row in result.rows if row["severity"] == 5} == {
        "jitter": 32, "rotation": 32, "scale": 32, "local_drop": 16, "global_drop": 8, "clutter": 34,
        "local_clutter": 48, "density": 16, "occlusion": 8,
    }  # fmt: skip
    levels = {row["corruption"]: row["level"] for row in result.rows if row["severity"] == 5}
    assert (levels["jitter"], levels["rotation"], levels["global_drop"]) == (0.05, 30, 0.75)


@pytest.mark.parametrize("size", [1, 41])
def test_the_batch_size_does_not_matter_and_the_seed_does(measured, tiny_run, one_thread, size):
    result, _ = measured
    plan, overrides = RobustnessPlan(tuple(CORRUPTIONS), (5,)), [CPU, f"train.eval_batch_size={size}"]
    again = evaluate_robustness(tiny_run / "best.pt", plan, overrides)
    assert list(again.rows) == [row for row in result.rows if row["severity"] == 5]
    if size == 41:
        other = evaluate_robustness(tiny_run / "best.pt", replace(plan, seed=1), [CPU])
        assert other.rows != again.rows


def test_means_are_over_severities_and_then_over_corruptions():
    rows = [
        {"corruption": name, "severity": s, "level": 0, "points": 1, "OA": oa, "mAcc": oa / 2}
        for name, s, oa in (("jitter", 1, 80.0), ("jitter", 5, 60.0), ("scale", 1, 50.0), ("scale", 5, 10.0))
    ]
    summary = RobustnessResult({"OA": 80.0, "mAcc": 70.0}, tuple(rows), {}, {}, 4).summary()
    assert summary["jitter"] == {"OA": 70.0, "mAcc": 35.0, "OA relative": 87.5}
    assert summary["mean"] == {"OA": 50.0, "mAcc": 25.0, "OA relative": 62.5}
    alone = RobustnessResult({"OA": 80.0, "mAcc": 70.0}, tuple(rows[:2]), {}, {}, 4).summary()
    assert set(alone) == {"jitter"}


def test_what_is_written(measured):
    result, out = measured
    assert {p.name for p in out.iterdir()} == {"robustness.csv", "robustness.json", "robustness.png"}
    with (out / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["corruption"] for r in (rows[0], rows[1], rows[-1])] == ["none", "jitter", "points"]
    assert len(rows) == 1 + 18 + 3
    assert float(rows[0]["OA"]) == result.clean["OA"]
    written = json.loads((out / "robustness.json").read_text())
    assert written["mean_over_severities"] == result.summary()
    assert written["by_points"]["16"] == result.by_points[16]
    assert (written["split"], written["clouds"], written["seed"]) == ("test", 41, 0)
    assert (out / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line(call, tiny_run, tmp_path):
    arguments = ("corruption=jitter,scale", "severity=2", "out=r", CPU)
    status, out, err = call("evaluate.py", tiny_run / "best.pt", *arguments, cwd=tmp_path)
    assert (status, err) == (0, "")
    assert "tiny on test (41 clouds, the first 32 points): clean OA " in out
    for said in ("jitter", "scale", "mean", "OA relative", "written: r/robustness.csv"):
        assert said in out


def test_the_split_and_the_seed_are_those_asked_for(tiny_run, one_thread, tmp_path):
    out = tmp_path / "new" / "folder"
    plan = RobustnessPlan(("scale",), (1,), seed=3)
    result = evaluate_robustness(tiny_run / "best.pt", plan, [CPU], split="val", out=out)
    assert result.clean == evaluate_checkpoint(tiny_run / "best.pt", [CPU], split="val").summary()
    written = json.loads((out / "robustness.json").read_text())
    assert (written["split"], written["clouds"], written["seed"]) == ("val", 24, 3)


def test_clouds_too_small_for_the_model_are_filled_up_or_refused(tiny, one_thread, tmp_path):
    """A grouping of 20 neighbours: the 8 points that a drop leaves are repeated, 8 points alone are refused."""
    folder = train(
        tiny(
            "model=bixt_grouping",
            "model.encoder.refinement.num_neighbors=20",
            "model.encoder.refinement.width=8",
            "train.max_steps=1",
            "train.measure_test=false",
            f"run_dir={tmp_path / 'run'}",
        )
    )
    result = evaluate_robustness(folder, RobustnessPlan(("global_drop",), (5,), (8, 24)), [CPU])
    assert result.rows[0]["points"] == 8
    assert list(result.by_points) == [24]
    assert result.refused == {8: "8 points: the model's grouping needs 20"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["corruption=fog"], r"corruption: unknown value 'fog', expected all or some of clutter, density, "),
        (
            ["corruption=jitter", "severity=6"],
            r"severity: unknown value '6', expected all or some of 1, 2, 3",
        ),
        (["points=x"], r"points: expected whole numbers, got 'x'"),
        (["points=0"], r"points: expected whole numbers from 1 up, got 0"),
        (["severity=1"], r"corruption, points: expected at least one of them"),
        (["corruption=jitter", "seed=-1"], r"seed: expected whole numbers, got '-1'"),
        (["corruption=jitter", "seed=1,2"], r"seed: expected one whole number, got '1,2'"),
        (["corruption=jitter", "split=dev"], r"split: expected one of test, train, val"),
        (["split=dev"], r"split: expected one of test, train, val"),
        (["corruption=jitter", "data.rot=x"], r"data\.rot: unknown key"),
        (["drop_strays=yes"], "drop_strays: expected true or false, got 'yes'"),
    ],
)
def test_mistakes_on_the_command_line(tiny_run, capsys, monkeypatch, arguments, said):
    main = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"))["main"]
    monkeypatch.setattr("sys.argv", ["evaluate.py", str(tiny_run / "best.pt"), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert re.search(said, str(ended.value.code))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"corruptions": ("fog",)}, "corruption: unknown value 'fog'"),
        ({"corruptions": ("jitter",), "severities": (0,)}, "severity: unknown value '0'"),
        ({"point_counts": (0,)}, "points: expected whole numbers from 1 up, got 0"),
        ({"corruptions": ("jitter",), "seed": -1}, "seed: expected whole numbers from 0 up, got -1"),
        ({}, "corruption, points: expected at least one of them"),
    ],
)
def test_a_plan_checks_itself(options, said):
    with pytest.raises(ValueError, match=said):
        RobustnessPlan(**options)


def test_part_segmentation_is_refused(tiny, one_thread, tmp_path):
    options = (
        "model=bixt_seg_naive",
        "task=part_segmentation",
        "train.max_steps=1",
        "train.measure_test=false",
    )
    folder = train(tiny(*options, f"run_dir={tmp_path / 'run'}"))
    with pytest.raises(ValueError, match="drop_strays: expected a classification task, got PartSeg"):
        evaluate_robustness(folder, RobustnessPlan(("jitter",)), [CPU], drop_strays=True)
    with pytest.raises(ValueError, match="robustness is measured for classification, got PartSegmentation"):
        evaluate_robustness(folder, RobustnessPlan(("jitter",)), [CPU])


def test_a_plan_reads_the_command_line():
    plan = RobustnessPlan.parse({"corruption": "scale,jitter,scale", "points": "all", "seed": "4"})
    assert plan.corruptions == ("scale", "jitter")
    assert plan.severities == (1, 2, 3, 4, 5)
    assert plan.point_counts == (1024, 512, 256, 128, 64)
    assert plan.seed == 4
    everything = RobustnessPlan(("scale", "jitter"), (1, 2, 3, 4, 5), (), 0)
    assert RobustnessPlan.parse({"corruption": "scale, jitter"}) == everything
    assert RobustnessPlan(("scale", "jitter")) == everything
    some = RobustnessPlan.parse({"points": "64, 32,64", "severity": "2, 1,2"})
    assert (some.point_counts, some.severities) == ((64, 32), (2, 1))


def test_the_picture_of_the_corruptions(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "scripts" / "show_corruptions.py"))["main"]
    assert main(["--out", str(tmp_path / "c.png"), "--points", "100", "--category", "table"]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "saved" in capsys.readouterr().out
    for wrong, said in (
        (["--category", "elk"], "--category: unknown value 'elk', expected one of "),
        (["--severity", "9"], "severity: expected a whole number from 1 to 5, got 9"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["--out", str(tmp_path / "no.png"), *wrong])
        assert said in str(ended.value.code)
    assert not (tmp_path / "no.png").exists()
