"""What a user sees of an error: one sentence, and an exit status."""

import json
import re
import runpy
import signal
import time

import pytest

from bixt3d.config import build, build_settings
from bixt3d.errors import placed, report_errors
from bixt3d.training.signals import StopRequest


@pytest.fixture(autouse=True)
def _one_line(monkeypatch):
    monkeypatch.delenv("BIXT3D_TRACEBACK", raising=False)


def test_errors_that_a_user_can_mend_end_a_script_with_one_line(monkeypatch, capsys):
    def fail():
        raise ValueError("width: expected\n  more.")

    with pytest.raises(SystemExit) as ended:
        report_errors(fail)
    assert ended.value.code == "error: width: expected more."
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("BIXT3D_TRACEBACK", "1")
    with pytest.raises(ValueError, match="width"):
        report_errors(fail)


def test_a_programming_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        report_errors(lambda: 1 / 0)
    assert report_errors(lambda: 3) == 3


def test_errors_of_the_operating_system_name_the_file(tmp_path):
    (tmp_path / "file").touch()
    for action, said in (
        (lambda: tmp_path.read_text(), f"{tmp_path}: Is a directory."),
        (lambda: (tmp_path / "file" / "x").touch(), f"{tmp_path / 'file' / 'x'}: Not a directory."),
        (lambda: (tmp_path / "file").mkdir(), f"{tmp_path / 'file'}: File exists."),
        (lambda: (tmp_path / "none").read_text(), f"{tmp_path / 'none'}: No such file or directory."),
    ):
        with pytest.raises(SystemExit) as ended:
            report_errors(action)
        assert ended.value.code == f"error: {said}"


def mine(path, code):
    """A module of the user's own."""
    path.write_text(code)
    return runpy.run_path(str(path))["run"]


@pytest.mark.parametrize(
    ("code", "place", "said"),
    [
        (
            "import torch\ndef run(): torch.nn.Linear(3, 2)(torch.ones(1, 4))",
            "line 2, in run",
            "mat1 and mat2",
        ),
        ("def run(): raise ValueError('width: no.')", "line 1, in run", "width: no."),
        ("def run(): len(3)", "line 1, in run", "object of type 'int' has no len()"),
    ],
)
def test_an_error_in_code_of_ones_own_is_shown_with_its_place(tmp_path, capsys, code, place, said):
    run = mine(tmp_path / "mymodel.py", code)
    with pytest.raises(SystemExit) as ended:
        report_errors(lambda: run())
    assert ended.value.code.startswith(f"error: {said}")
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert re.search(rf'mymodel\.py", {place}', shown)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def run(): raise PermissionError(13, 'Permission denied', 'x')", "x: Permission denied."),
        (
            "from bixt3d.training.settings import TrainSettings\ndef run(): TrainSettings(epochs=0)",
            "epochs: expected",
        ),
        (
            "from omegaconf import OmegaConf\ndef run(): OmegaConf.create('a: 1').merge_with(3)",
            "Invalid input.",
        ),
        ("def run(): open('/nowhere/x')", "/nowhere/x: No such file or directory."),
    ],
)
def test_what_says_enough_is_one_line_also_when_code_of_ones_own_called_it(tmp_path, capsys, code, said):
    run = mine(tmp_path / "mymodel.py", code)
    with pytest.raises(SystemExit) as ended:
        report_errors(lambda: run())
    assert ended.value.code.startswith(f"error: {said}")
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_one_line_and_status_130(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        report_errors(interrupted)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def undecodable(path: str):
    """Read what is no text, in a call that a config names."""
    return b"\x80".decode("utf-8") + path


def test_an_error_whose_class_takes_more_than_a_message_keeps_its_words():
    with pytest.raises(ValueError, match=r"^data: 'utf-8' codec can't decode byte 0x80"):
        build({"_target_": f"{__name__}.undecodable", "path": "x"}, "data")
    with pytest.raises(ValueError, match=r"^train\.'utf-8' codec can't decode"):
        build_settings(undecodable, {"path": "x"}, "train")
    wrong = json.JSONDecodeError("no value", "x", 0)
    assert type(placed(wrong, "here: ")) is ValueError
    assert str(placed(wrong, "here: ")) == "here: no value: line 1 column 1 (char 0)"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("no data"), FileNotFoundError),
        (PermissionError(13, "Permission denied", "x"), OSError),
        (NotImplementedError("no kernel"), NotImplementedError),
        (ModuleNotFoundError("no package"), ImportError),
        (KeyError("x"), ValueError),
    ],
)
def test_an_error_stays_of_its_kind_when_it_is_said_where(error, kind):
    assert type(placed(error, "data: ")) is kind
    assert str(placed(error, "data: ")).startswith("data: ")


def test_one_ctrl_c_that_comes_twice_stops_once_and_a_later_one_interrupts(monkeypatch):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested == signal.SIGINT
        later = time.monotonic() + 2
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK"])
def test_what_asks_a_run_to_leave_kills_nothing(name):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip("not on this platform")

    def mine(*_):
        """What would happen otherwise."""

    before = signal.signal(number, mine)
    try:
        with StopRequest() as stop:
            signal.raise_signal(number)
            assert stop.requested == number
        assert signal.getsignal(number) == mine
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not on this platform")
def test_under_nohup_the_end_of_a_connection_is_no_request():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)
