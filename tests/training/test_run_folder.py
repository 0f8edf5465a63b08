"""Where a run is written: no two processes in one folder, whenever they start and however they end."""

import errno
import os
import signal
import socket
import subprocess
import sys
from datetime import datetime
from types import SimpleNamespace

import pytest
from places import PATIENCE, ROOT

from bixt3d.engine import Stopped
from bixt3d.training import experiment, run_folder
from bixt3d.training.run_folder import RunFolder
from bixt3d.training.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = SimpleNamespace(is_global_zero=True, broadcast=lambda value: value)


def place(folder=None, resume=None):
    return RunFolder({"name": "some", "run_dir": folder}, TrainSettings(resume=resume), ALONE)


@pytest.fixture
def writer():
    """Let another process write a folder; returns it, while it does."""
    code = """
import sys, time
from types import SimpleNamespace
from bixt3d.training.run_folder import RunFolder
from bixt3d.training.settings import TrainSettings
fabric = SimpleNamespace(is_global_zero=True, broadcast=lambda value: value)
with RunFolder({"name": "some", "run_dir": sys.argv[1]}, TrainSettings(resume="auto"), fabric) as place:
    place.make()
    print("writes", flush=True)
    time.sleep(600)
"""
    started = []

    def start(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "4711"},
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"writes\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE)


def test_two_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    class Noon(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2, 12)

    monkeypatch.setattr(run_folder, "datetime", Noon)
    monkeypatch.chdir(tmp_path)
    with place() as first, place() as second:  # both have looked before either makes one
        folders = [first.make(), second.make()]
    assert [f.name for f in folders] == ["2026-01-02_12-00-00", "2026-01-02_12-00-00-2"]
    assert all(f.is_dir() for f in folders)


def test_a_second_process_is_told_who_writes_the_run_and_changes_nothing(
    tiny, tiny_run, writer, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    folder.mkdir()
    for path in tiny_run.glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    process = writer(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    who = (
        rf"{folder} is being written by process {process.pid} of job 4711 on {socket.gethostname()} since 20"
    )
    for options in (
        (f"train.resume={folder}",),
        (f"run_dir={folder}", "train.resume=auto"),
        (f"run_dir={folder}",),
    ):
        with pytest.raises(ValueError, match=who):
            experiment.train(tiny(*options))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nor_does_it_write_a_run_that_has_saved_nothing_yet(writer, tmp_path):
    with place(tmp_path / "run") as second:
        writer(tmp_path / "run")  # begins after we have looked
        with pytest.raises(ValueError, match="is being written by process"):
            second.make()
    with pytest.raises(ValueError, match="is being written by process"), place(tmp_path / "run"):
        pass


def test_a_process_that_was_killed_keeps_nobody_away(writer, tmp_path):
    process = writer(tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    with place(tmp_path / "run") as after:
        assert after.make() == tmp_path / "run"
        assert f"process {os.getpid()} " in (tmp_path / "run" / ".writer").read_text()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="other locks")
def test_without_locks_a_run_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    import fcntl

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    with place(tmp_path / "run") as alone:
        alone.make()
    assert f"{tmp_path / 'run'}: its file system has no locks" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


def test_the_same_command_starts_a_run_continues_it_and_measures_it_again(
    tiny, tiny_run, same_run, tmp_path, capsys
):
    folder = tmp_path / "run"
    config = tiny(f"run_dir={folder}", "train.resume=auto")
    for minutes in (1e-9, 2e-9):
        config["train"]["max_minutes"] = minutes
        with pytest.raises(Stopped):
            experiment.train(config)
        assert capsys.readouterr().out.endswith("continue with the same command\n")
    config["train"]["max_minutes"] = None
    for _ in range(2):
        assert experiment.train(config) == folder
        same_run(folder, tiny_run)
    assert not (folder / ".writer").exists()


def test_auto_needs_a_folder_of_a_known_name(tiny):
    with pytest.raises(ValueError, match=r"^train\.resume: auto continues the run in run_dir.* run_dir=DIR"):
        experiment.train(tiny("train.resume=auto"))
