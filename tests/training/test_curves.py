"""Curves are what the CSV files say, also those of a run that is not done."""

import pytest
import torch

from bixt3d.training.curves import Curves, draw_curves, read_curves, running_mean


def test_a_run_leaves_its_curves(tiny_run):
    curves = read_curves(tiny_run)
    assert len(curves.loss) == 16, "every step is logged"
    assert curves.figures == ["OA", "mAcc"]
    best = torch.load(tiny_run / "best.pt", weights_only=True)["selection"]
    assert max(curves.selection["OA"]) == pytest.approx(best["OA"], abs=1e-3)
    assert (tiny_run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_half_a_row_at_the_end_is_left_out(tmp_path):
    (tmp_path / "train.csv").write_text("step,epoch,loss\n1,0,3.5\n2,0,3.25\n3,0")
    curves = read_curves(tmp_path)
    assert curves.loss == {1: 3.5, 2: 3.25}
    assert curves.figures == []


def test_a_run_that_has_logged_nothing_yet(tmp_path):
    (tmp_path / "train.csv").write_text("")
    assert read_curves(tmp_path).loss == {}
    draw_curves({"new": read_curves(tmp_path)}, tmp_path / "a.png")


@pytest.mark.parametrize(("width", "means"), [(1, [1, 3, 5, 11]), (2, [1, 2, 4, 8]), (9, [1, 2, 3, 5])])
def test_running_mean_by_hand(width, means):
    assert running_mean([1, 3, 5, 11], width) == means


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no train\.csv here; expected the folder of a run"):
        read_curves(tmp_path)
    (tmp_path / "train.csv").write_text("step,epoch\n1,0\n")
    with pytest.raises(ValueError, match="has no column 'loss'"):
        read_curves(tmp_path)
    run = Curves({1: 2.0}, {"step": [1], "OA": [50.0]})
    with pytest.raises(ValueError, match="no column 'minutes'; draw against step"):
        draw_curves({"old": run}, tmp_path / "a.png", against="minutes")


def test_the_script_draws_several_runs(call, tiny_run, tmp_path):
    status, out, err = call(
        "plot_runs.py", f"one={tiny_run}", f"two={tiny_run}", "--out", tmp_path / "new" / "b.png"
    )
    assert status == 0, err
    assert (tmp_path / "new" / "b.png").read_bytes().startswith(b"\x89PNG")
    assert f"saved {tmp_path / 'new' / 'b.png'}" in out
    status, _, err = call("plot_runs.py", tiny_run, tiny_run, "--out", tmp_path / "c.png")
    assert status != 0
    assert err.startswith("error: two runs have the same name")
