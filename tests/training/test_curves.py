"""Curves are what the CSV files say, also those of a run that is not done."""

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bixt3d.training.curves import Curves, draw_curves, read_curves, running_mean

save = Figure.savefig


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


def test_rows_that_are_no_numbers_are_left_out(tmp_path):
    """Such as a second heading, which two writers of one file left in runs of older versions."""
    (tmp_path / "train.csv").write_text("step,loss\n1,3.5\nstep,loss\n2,nan\n")
    (tmp_path / "selection.csv").write_text("step,epoch,OA\n1,1,50\nstep,epoch,OA,minutes\n2,2,60\n")
    curves = read_curves(tmp_path)
    assert list(curves.loss) == [1, 2]
    assert curves.selection == {"step": [1, 2], "epoch": [1, 2], "OA": [50, 60]}


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


def test_many_runs_leave_room_for_their_curves(tmp_path, recwarn, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *a, **k: drawn.append(figure) or save(figure, *a, **k)
    )
    runs = {
        f"optim.optimizer.lr={i}": Curves(
            {1: 2.0, 2: 1.0}, {"step": [1, 2], "OA": [i, i + 1.0], "mAcc": [9.0, 9.5]}
        )
        for i in range(40)
    }
    draw_curves(runs, tmp_path / "many.png")
    assert not recwarn.list, [str(w.message) for w in recwarn.list]
    (figure,) = drawn
    width, height = 110 * figure.get_size_inches()
    left, right = figure.axes
    assert len({to_hex(line.get_color()) for line in right.lines}) == len(right.lines) == 40
    (legend,) = figure.legends
    assert legend.get_texts()[3].get_text() == "optim.optimizer.lr=3, OA 4.00 at best"
    assert to_hex(legend.legend_handles[3].get_color()) == to_hex(right.lines[3].get_color())
    around = legend.get_window_extent()
    assert min(around.x0, around.y0) >= 0
    assert (around.x1, around.y1) <= (width, height)
    for axes in (left, right):
        assert axes.get_window_extent().height > 250
        assert not axes.get_window_extent().overlaps(around)
        assert axes.get_legend() is None


@pytest.mark.parametrize("given", ["lr=0.1", "a=lr=0.1", "a=b=lr=0.1"])
def test_a_run_folder_may_have_a_sign_in_its_name(call, tmp_path, given):
    (tmp_path / "lr=0.1").mkdir()
    (tmp_path / "lr=0.1" / "train.csv").write_text("step,epoch,loss\n1,0,3.5\n2,0,3.25\n")
    status, _, err = call("plot_runs.py", given, cwd=tmp_path)
    assert status == 0, err
    assert (tmp_path / "curves.png").is_file()
