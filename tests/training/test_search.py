"""Searches: the order of the runs, what the table says, going on where it was broken off, and mistakes."""

import csv
import os
import re
import signal
import subprocess
import time

import pytest
import torch
from places import PATIENCE, ROOT

from bixt3d.training import search as searching
from bixt3d.training import signals
from bixt3d.training.search import read_search, run_search
from bixt3d.training.search_results import markdown_table

CFGS = ROOT / "cfgs"
TINY = str(ROOT / "tests" / "tiny.yaml")
# A trainer of milliseconds: accuracies that can be worked out by hand, and the ways in which a run can end.
STAND_IN = """
import os, pathlib, shutil, signal, sys, time
config, *given = sys.argv[1:]
given = dict(a.partition("=")[::2] for a in given)
folder = pathlib.Path(given["run_dir"].strip("'"))
lr, seed = float(given.get("optim.optimizer.lr", "0.5")), int(given["train.seed"])
resumed = "goes on" if given["train.resume"] == "auto" and (folder / "last.pt").exists() else ""
with open(pathlib.Path(__file__).with_name("calls.txt"), "a") as file:
    file.write(f"{folder.name} {resumed}".strip() + chr(10))
assert given["train.measure_test"] == "false"
def stopped(number, frame):
    shutil.copy(pathlib.Path(__file__).with_name("last.pt"), folder / "last.pt")
    sys.exit(128 + number)
signal.signal(signal.SIGINT, stopped)
if pathlib.Path(__file__).with_name("interrupt").exists() and folder.name == "wide_seed0":
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(60)
if pathlib.Path(__file__).with_name("break").exists() and folder.name == "wide_seed0":
    sys.stdout.buffer.write(b"so far \\xff so good\\n")
    sys.exit("epoch 1\\rerror: loss: became nan by step 7; lower it.")
oa, macc = 60 + 8 * seed + 40 * lr * (1 + seed), 50.0
(folder / "selection.csv").write_text(f"step,epoch,OA,mAcc,minutes\\n1,1,10,10,0.5\\n2,2,{oa},{macc},1.5\\n")
shutil.copy(pathlib.Path(__file__).with_name("last.pt"), folder / "last.pt")
"""


@pytest.fixture
def stand_in(tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    content = {"format": "bixt3d checkpoint", "version": 1, "progress": {"seconds": 90.0}}
    torch.save(content, folder / "last.pt")
    (folder / "train.py").write_text(STAND_IN)
    return folder / "train.py"


def calls(stand_in):
    path = stand_in.with_name("calls.txt")
    return path.read_text().splitlines() if path.exists() else []


def rows(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_settings_are_compared_seed_by_seed(written, stand_in, tmp_path, capsys):
    """With the accuracies 80 and 108 at the seeds of the first setting, 70 and 88 of the second: worked by hand."""
    search, out = read_search(written(), config_root=CFGS), tmp_path / "out"
    assert run_search(search, out, script=stand_in) == 0
    order = ["plain_seed0", "fast_bold_seed0", "wide_seed0", "plain_seed1", "fast_bold_seed1", "wide_seed1"]
    assert calls(stand_in) == order
    head, rule, plain, fast, wide = (out / "results.md").read_text().splitlines()
    assert head == (
        "| setting | val OA: seed 0 | seed 1 | mean | difference "
        "| val mAcc: seed 0 | seed 1 | mean | difference | minutes |"
    )
    assert rule == "|---|---|---|---|---|---|---|---|---|---|"
    assert plain == "| plain | 80.00 | 108.00 | 94.00 ± 19.80 |  | 50.00 | 50.00 | 50.00 ± 0.00 |  | 1.5 |"
    assert fast == (
        "| fast, bold | 70.00 | 88.00 | 79.00 ± 12.73 | -15.00 ± 7.07 "
        "| 50.00 | 50.00 | 50.00 ± 0.00 | +0.00 ± 0.00 | 1.5 |"
    )
    assert "| +0.00 ± 0.00 | 50.00" in wide
    assert head in capsys.readouterr().out
    first = rows(out)[1]
    assert first == {
        "setting": "fast, bold",
        "seed": "0",
        "OA": "70.0",
        "mAcc": "50.0",
        "minutes": "1.50",
        "failure": "",
        "overrides": "train.measure_test=false optim.optimizer.lr=0.25 train.seed=0",
    }


def test_where_the_first_setting_failed_the_others_are_compared_at_the_other_seeds(written, tmp_path):
    runs = read_search(written(), config_root=CFGS).runs(tmp_path / "out")
    for run, figure in zip(runs, (None, 70, 80, 60, 65, None), strict=True):
        if figure is not None:
            run.folder.mkdir(parents=True)
            (run.folder / "selection.csv").write_text(f"step,epoch,OA,minutes\n1,1,{figure},1\n")
            run.finish(60)
    *_, plain, fast, wide, _, _ = markdown_table(runs, {runs[0]: "nan"}).splitlines()
    assert plain == "| plain | failed | 60.00 | 60.00 |  | 1.0 |"
    assert fast == "| fast, bold | 70.00 | 65.00 | 67.50 ± 3.54 | +5.00 | 1.0 |"
    assert wide == "| wide | 80.00 | - | 80.00 | - | 1.0 |"


def test_a_setting_has_the_last_word(written, tmp_path, compose):
    search = read_search(written(common=["optim.optimizer.lr=0.1"]), config_root=CFGS)
    rates = [compose(TINY, *run.overrides)["optim"]["optimizer"]["lr"] for run in search.runs(tmp_path)]
    assert rates == [0.1, 0.25, 0.1] * 2


def test_a_finished_run_is_not_repeated_and_seeds_can_be_added(written, stand_in, tmp_path):
    out = tmp_path / "out"
    run_search(read_search(written(seeds=[0]), config_root=CFGS), out, script=stand_in)
    assert len(calls(stand_in)) == 3
    assert "| plain | 80.00 | 80.00 |" in (out / "results.md").read_text()  # of one seed: no deviation
    run_search(read_search(written(), config_root=CFGS), out, script=stand_in)
    assert calls(stand_in)[3:] == ["plain_seed1", "fast_bold_seed1", "wide_seed1"]


def test_a_failed_run_is_listed_with_its_reason_and_tried_again(written, stand_in, tmp_path, capsys):
    search, out = read_search(written(), config_root=CFGS), tmp_path / "out"
    stand_in.with_name("break").touch()
    assert run_search(search, out, script=stand_in) == 1
    assert len(calls(stand_in)) == 6
    table = (out / "results.md").read_text()
    # the difference is that of seed 1, which both have
    assert "| wide | failed | 108.00 | 108.00 | +0.00 |" in table
    reason = "error: loss: became nan by step 7; lower it."
    assert f"wide, seed 0, failed: {reason}" in table
    assert [r["failure"] for r in rows(out) if r["setting"] == "wide"] == [reason, ""]
    first_try = (out / "wide_seed0.log").read_bytes()
    stand_in.with_name("break").unlink()
    assert run_search(search, out, script=stand_in) == 0
    assert calls(stand_in)[6:] == ["wide_seed0"]
    assert (out / "wide_seed0.log").read_bytes().startswith(first_try), "what it printed then is kept"
    assert "failed" not in (out / "results.md").read_text()


def test_ctrl_c_reaches_the_run_and_the_search_goes_on_from_there(written, stand_in, tmp_path, capsys):
    search, out = read_search(written(), config_root=CFGS), tmp_path / "out"
    flag = stand_in.with_name("interrupt")
    flag.touch()
    assert run_search(search, out, script=stand_in) == 128 + signal.SIGINT
    assert calls(stand_in)[-1] == "wide_seed0"
    assert "stopped; the same command continues" in capsys.readouterr().out
    assert [r["setting"] for r in rows(out)] == ["plain", "fast, bold"]
    flag.unlink()
    assert run_search(search, out, script=stand_in) == 0
    assert calls(stand_in)[3:] == ["wide_seed0 goes on", "plain_seed1", "fast_bold_seed1", "wide_seed1"]


def test_what_a_run_is_sent_is_what_the_platform_can_send(written, stand_in, tmp_path, monkeypatch):
    """On Windows that is Ctrl-Break alone; here its place is taken by Ctrl-C, all that the stand-in knows."""
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT, raising=False)
    ask = "os.kill(os.getppid(), signal.SIG"
    stand_in.write_text(STAND_IN.replace(f"{ask}INT", f"{ask}TERM"))
    stand_in.with_name("interrupt").touch()
    out = tmp_path / "out"
    assert run_search(read_search(written(), config_root=CFGS), out, script=stand_in) == 128 + signal.SIGTERM
    assert (out / "wide_seed0" / "last.pt").exists()


# A run whose work is done by a process of its own, as under torchrun, and that needs a while to end it.
PARENT = """
import os, pathlib, signal, subprocess, sys, time
here = pathlib.Path(__file__)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
here.with_name("worker.txt").write_text(str(worker.pid))
stubborn = here.with_name("stubborn").exists()
asked = 0
def stopped(number, frame):
    global asked
    asked += 1
    if asked == 2 and not stubborn:
        time.sleep(0.3)
        worker.kill()
        worker.wait()
        sys.exit(130)
signal.signal(signal.SIGINT, stopped)
os.kill(os.getppid(), signal.SIGINT)
while not asked:
    time.sleep(0.01)
os.kill(os.getppid(), signal.SIGINT)
time.sleep(60)
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_second_ctrl_c_lets_a_run_end_its_own_processes(written, stand_in, tmp_path, monkeypatch, stubborn):
    """A run that does not end them in time is killed, and its end is waited for."""
    monkeypatch.setattr(signals, "ONE_PRESS", 0.0)
    monkeypatch.setattr(searching, "PATIENCE", 0.5 if stubborn else PATIENCE)
    stand_in.write_text(PARENT)
    if stubborn:
        stand_in.with_name("stubborn").touch()
    started = []
    popen = subprocess.Popen

    def noted(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(searching.subprocess, "Popen", noted)
    with pytest.raises(KeyboardInterrupt):
        run_search(read_search(written(), config_root=CFGS), tmp_path / "out", script=stand_in)
    worker = int(stand_in.with_name("worker.txt").read_text())
    if stubborn:
        os.kill(worker, signal.SIGKILL)
        assert started[0].returncode == -signal.SIGKILL
    else:
        assert started[0].returncode == 130
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_the_table_before_the_first_run(written, tmp_path):
    search = read_search(written(), config_root=CFGS)
    assert markdown_table(search.runs(tmp_path / "out"), {}) == "No run has finished.\n"


def test_the_command_line(call, written):
    status, out, err = call("search.py", written(settings={"a": ["train.epocs=3"]}))
    assert (status, out) == (1, "")
    assert re.fullmatch(r"error: setting 'a': train\.epocs: unknown key; expected one of .*\n", err)


@pytest.mark.slow
def test_a_real_search_that_is_stopped_gives_the_figures_of_one_that_is_not(call, start, written, tmp_path):
    settings = {"plain": [], "fast, bold": ["optim.optimizer.lr=0.05"]}
    path = written(settings=settings, seeds=[3], common=["train.epochs=10"])
    folders = [tmp_path / "whole run's folder", tmp_path / "in pieces"]
    status, _, err = call("search.py", path, "--out", folders[0])
    assert (status, err) == (0, "")

    process = start("search.py", path, "--out", folders[1])
    checkpoint, end = folders[1] / "plain_seed3" / "last.pt", time.monotonic() + PATIENCE
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "stopped; the same command continues" in out
    assert not (folders[1] / "plain_seed3" / "finished.json").exists()
    status, out, err = call("search.py", path, "--out", folders[1])
    assert (status, err) == (0, "")
    whole, pieces = (
        [{k: v for k, v in row.items() if k != "minutes"} for row in rows(folder)] for folder in folders
    )
    assert whole == pieces
    assert len(whole) == 2
    assert "| plain |" in out
