"""The tables and pictures of robustness show the figures that were measured."""

import json

import matplotlib.figure
import numpy as np
import pytest
import torch

from bixt3d.evaluation.robustness import RobustnessPlan, RobustnessResult
from bixt3d.evaluation.robustness_plots import plot_clouds, plot_robustness

FACTS = {"name": "mine", "split": "val", "clouds": 1234, "points": 1024, "seed": 3}


def row(name, severity, accuracy):
    return {
        "corruption": name,
        "severity": severity,
        "level": severity / 100,
        "points": 1024 - severity,
        "OA": accuracy,
        "mAcc": accuracy - 10,
    }


def result(clean=80.0):
    rows = (row("jitter", 2, 60.0), row("jitter", 4, 20.0), row("scale", 2, 70.0), row("scale", 4, 66.0))
    by_points = {512: {"OA": 72.0, "mAcc": 50.0}, 64: {"OA": 8.0, "mAcc": 5.0}}
    refused = {2048: "2,048 points: the clouds hold 1,024"}
    return RobustnessResult({"OA": clean, "mAcc": 61.0}, rows, by_points, refused, 1234)


def cells(line):
    """Return what stands in a line of a table."""
    return [part.strip() for part in line.replace("┃", "│").strip(" │").split("│")]


def test_the_printed_tables(capsys):
    result().print(FACTS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("mine on val (1,234 clouds, the first 1,024 points): clean OA 80.00 %, mAcc 61.00 %")
    table = [cells(line) for line in lines if "│" in line or "┃" in line]
    assert table == [
        ["corruption", "2", "4", "OA", "mAcc", "OA relative"],
        ["jitter", "60.00", "20.00", "40.00", "30.00", "50.00"],
        ["scale", "70.00", "66.00", "68.00", "58.00", "85.00"],
        ["mean", "", "", "54.00", "44.00", "67.50"],
        ["points", "OA", "mAcc", "OA relative"],
        ["512", "72.00", "50.00", "90.00"],
        ["64", "8.00", "5.00", "10.00"],
    ]
    assert any("(seed 3)" in line for line in lines)
    assert lines[-1] == "not measured: 2,048 points: the clouds hold 1,024"
    result().print({**FACTS, "drop_strays": True})
    assert "the first 1,024 points, strays dropped): clean" in capsys.readouterr().out


def test_a_model_that_is_never_right_has_no_relative_accuracy():
    assert np.isnan(result(clean=0.0).summary()["jitter"]["OA relative"])


@pytest.fixture
def drawn(monkeypatch):
    """Keep the figures that are saved."""
    figures, save = [], matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *args, **options: (figures.append(self), save(self, *args, **options))[1],
    )
    return figures


def test_what_is_written_and_drawn(tmp_path, drawn):
    paths = result().write(tmp_path, FACTS)
    assert [path.name for path in paths] == ["robustness.csv", "robustness.json", "robustness.png"]
    assert paths[0].read_text().splitlines() == [
        "corruption,severity,level,points,OA,mAcc",
        "none,0,,1024,80.0,61.0",
        "jitter,2,0.02,1022,60.0,50.0",
        "jitter,4,0.04,1020,20.0,10.0",
        "scale,2,0.02,1022,70.0,60.0",
        "scale,4,0.04,1020,66.0,56.0",
        "points,,,512,72.0,50.0",
        "points,,,64,8.0,5.0",
    ]
    content = json.loads(paths[1].read_text())
    assert content["clean"] == {"OA": 80.0, "mAcc": 61.0}
    assert content["measured"] == [dict(one) for one in result().rows]
    assert content["by_points"] == {"512": {"OA": 72.0, "mAcc": 50.0}, "64": {"OA": 8.0, "mAcc": 5.0}}
    left, right = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert lines == {"jitter": [[0, 80], [2, 60], [4, 20]], "scale": [[0, 80], [2, 70], [4, 66]]}
    assert {text.get_text() for text in left.get_legend().get_texts()} == {"jitter", "scale"}
    assert right.lines[0].get_xydata().tolist() == [[512, 72], [64, 8]]
    assert [label.get_text() for label in right.get_xticklabels()] == ["512", "64"]
    assert right.get_xscale() == "log"
    assert (left.get_ylim(), left.get_ylabel()) == ((0, 100), "OA, %")
    assert drawn[0].get_suptitle() == "mine, val, the first 1,024 points"


def test_one_panel_is_drawn_where_there_is_one(tmp_path, drawn):
    plot_robustness({"jitter": {1: 50.0}}, {}, 90.0, tmp_path / "a.png", title="t")
    plot_robustness({}, {64: 50.0}, 90.0, tmp_path / "b.png", title="t")
    assert [len(figure.axes) for figure in drawn] == [1, 1]
    assert [figure.axes[0].get_xlabel() for figure in drawn] == [
        "severity (0: as it is)",
        "points of each cloud",
    ]


def test_clouds_are_drawn_upright_the_near_points_over_the_far_ones(tmp_path, drawn):
    ends = {"x": [0.9, 0, 0], "y": [0, 0.9, 0], "z": [0, 0, 0.9]}
    clouds = {name: torch.tensor([[0.0, 0, 0, 7, 7, 7], [*end, 7, 7, 7]]) for name, end in ends.items()}
    plot_clouds(clouds, tmp_path / "c.png", columns=2)
    axes = drawn[0].axes
    assert [ax.get_title() for ax in axes] == ["x", "y", "z", ""]
    # the end of each axis is nearer than the origin, and so is drawn after it
    (middle_x, right), (middle_y, top), (middle_z, front) = (
        ax.collections[0].get_offsets() for ax in axes[:3]
    )
    assert np.allclose([middle_x, middle_y, middle_z], 0, atol=1e-6)
    assert right[0] > 0.3, "x goes to the right"
    assert top[1] > 0.3, "y goes up"
    assert abs(top[0]) < 0.01
    assert front[1] < 0, "z comes forward, seen from above"
    assert axes[0].get_xlim() == axes[0].get_ylim() == (-1, 1)


def test_a_plan_keeps_the_order_in_which_it_is_asked():
    plan = RobustnessPlan.parse({"corruption": "jitter", "severity": "5,1", "points": "64, 128"})
    assert (plan.severities, plan.point_counts) == ((5, 1), (64, 128))
