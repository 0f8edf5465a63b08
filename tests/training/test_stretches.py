"""A run in stretches: a limit of minutes saves and leaves, and the results say when a target was reached."""

import json
import signal

import pytest

from bixt3d.engine import Stopped
from bixt3d.training import experiment
from bixt3d.training.logs import RunLog
from bixt3d.training.report import minutes_to


def test_a_run_in_stretches_of_no_time_ends_as_the_run_in_one(
    tiny, tiny_run, one_thread, same_run, tmp_path, capsys
):
    """Each stretch does one step; its limit, like where it lies, may change from one to the next."""
    folder = tmp_path / "run"
    for i in range(3):
        begin = f"train.resume={folder}" if i else f"run_dir={folder}"
        with pytest.raises(Stopped) as left:
            experiment.train(tiny(begin, f"train.max_minutes={1e-9 * (i + 1)}"))
        assert left.value.signal_number == signal.SIGTERM
        assert f"stopped and saved at step {i + 1}; continue with the same command and train.resume=" in (
            capsys.readouterr().out
        )
    experiment.train(tiny(f"train.resume={folder}", "train.max_minutes=60", "train.targets=[0,101]"))
    same_run(folder, tiny_run)
    results = json.loads((folder / "results.json").read_text())
    assert set(results["minutes_to"]) == {"0", "101"}
    assert 0 <= results["minutes_to"]["0"] <= results["minutes"] + 0.01
    assert results["minutes_to"]["101"] is None


def test_a_script_makes_an_exit_status_of_a_stretch(tiny, one_thread, tmp_path):
    config = tiny(f"run_dir={tmp_path / 'run'}", "train.max_minutes=1e-9")
    with pytest.raises(SystemExit) as left:
        experiment.main(config)
    assert left.value.code == 128 + signal.SIGTERM
    assert (tmp_path / "run" / "last.pt").is_file()


def test_several_devices_are_started_by_the_script_alone(tiny, tmp_path, monkeypatch):
    """A program that calls ``train`` is not run again behind its back."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    started = []
    monkeypatch.setattr(experiment, "run_again_under_torchrun", lambda devices: started.append(devices) or 7)
    config = tiny(f"run_dir={tmp_path / 'run'}", "train.devices=2")
    with pytest.raises(
        ValueError, match=r"^train\.devices: 2 devices take a process each; start .* torchrun"
    ):
        experiment.train(config)
    assert not started
    with pytest.raises(SystemExit) as left:
        experiment.main(config)
    assert (started, left.value.code) == ([2], 7)
    assert not (tmp_path / "run").exists()


def test_the_first_minute_counts(tmp_path):
    path = tmp_path / "selection.csv"
    path.write_text("step,epoch,OA,minutes\n1,1,50,1.5\n2,2,90.5,3\n3,3,70,4.5\n4,4,92,6\n")
    assert minutes_to(path, "OA", [50, 90, 92.0, 92.5]) == {"50": 1.5, "90": 3.0, "92": 6.0, "92.5": None}
    assert minutes_to(path, "OA", []) == {}
    path.write_text("step,epoch,OA\n1,1,50\n")
    assert minutes_to(path, "OA", [50]) == {"50": None}, "an older run did not record them"
    assert minutes_to(tmp_path / "none.csv", "OA", [50]) == {"50": None}


def test_a_log_that_an_older_version_began_keeps_its_columns(tmp_path):
    (tmp_path / "selection.csv").write_text("step,OA\n1,50\n")
    log = RunLog(tmp_path, step=1)
    log.write("selection", 2, OA=60.0, minutes=3.0)
    log.close()
    assert (tmp_path / "selection.csv").read_text().split() == ["step,OA", "1,50", "2,60"]


@pytest.mark.parametrize(
    ("override", "error", "said"),
    [
        ("train.max_minutes=0", ValueError, r"train\.max_minutes: expected a positive number or null, got 0"),
        ("train.max_minutes=x", TypeError, r"train\.max_minutes: expected a number or null, got 'x'"),
        ("train.targets=[x]", TypeError, r"train\.targets: expected numbers, got \['x'\]"),
    ],
)
def test_mistakes(tiny, tmp_path, override, error, said):
    with pytest.raises(error, match=said):
        experiment.train(tiny(override, f"run_dir={tmp_path / 'run'}"))
