"""Two processes on the CPU: one run, equal weights, every cloud measured once, the same after a cut."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from places import PATIENCE, ROOT

from bixt3d.datasets import Shapes
from bixt3d.evaluation.evaluate import evaluate_checkpoint

pytestmark = pytest.mark.slow

# Batch norm, since its statistics are what differs between the processes.
GROUPING = (
    "model=bixt_grouping",
    "model.encoder.refinement.num_neighbors=4",
    "model.encoder.refinement.width=8",
)
RUN = ("train.devices=2", "train.batch_size=8", *GROUPING)


@pytest.fixture(scope="module")
def two(call, tmp_path_factory):
    """A run that relaunched itself in two processes; returns its folder and what it printed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    status, out, err = call("train_cls.py", "tests/tiny.yaml", f"run_dir={folder}", *RUN)
    assert status == 0, err
    assert "Traceback" not in err
    return folder, out


def test_it_is_one_run_of_two_devices(two):
    folder, out = two
    assert out.count("run folder:") == 1
    assert "2 cpu device(s)" in out
    results = json.loads((folder / "results.json").read_text())
    assert (results["steps"], results["devices"]) == (16, 2)
    assert [p.name for p in folder.parent.iterdir()] == ["run"]
    with (folder / "train.csv").open() as file:
        assert len(file.readlines()) == 17, "only one process writes"


@pytest.mark.parametrize(("name", "which"), [("last.pt", "last"), ("best.pt", "selected")])
def test_every_cloud_is_measured_once(two, one_thread, name, which):
    """41 clouds on two processes: the figures are those of one process that measures them all."""
    figures = json.loads((two[0] / "results.json").read_text())
    alone = evaluate_checkpoint(two[0] / name, ["train.accelerator=cpu"])
    assert int(alone.confusion.sum()) == figures["clouds"] == 41
    assert alone.summary() == figures["results"][which]
    with (two[0] / "confusion.csv").open() as file:
        rows = [line.strip().split(",")[1:] for line in file][1:]
    if which == "selected":
        assert [[int(n) for n in row] for row in rows] == alone.confusion.tolist()
        # each cloud has its own row, though the processes took turns
        names = Shapes(num_train=76, num_val=24, num_test=41, num_points=32).load("test").names
        _, *expected = alone.per_cloud(names)["predictions.csv"]
        with (two[0] / "predictions.csv").open(newline="") as file:
            _, *clouds = csv.reader(file)
        assert [row[:3] for row in clouds] == [row[:3] for row in expected]
        assert [row[0] for row in clouds] == list(names)
        assert alone.details() == pytest.approx(figures["details"][which], abs=1e-3)


def test_a_script_can_evaluate_on_two_devices(two, call):
    status, out, err = call("evaluate.py", two[0] / "last.pt", "train.devices=2", "train.accelerator=cpu")
    assert status == 0, err
    figures = json.loads((two[0] / "results.json").read_text())["results"]["last"]
    assert out.count(f"OA {figures['OA']:.2f} %, mAcc {figures['mAcc']:.2f} %") == 1


def torchrun(script, *arguments, processes=2):
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)
    return subprocess.Popen(
        [sys.executable, *command, *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_both_processes_hold_the_same_weights(tmp_path):
    """Also those of the running average, and the statistics that a selection is measured with."""
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from bixt3d import engine\nfrom bixt3d.training import experiment\n"
        "from bixt3d.config import launch\n"
        "measured = []\n"
        "evaluate = engine.evaluate\n"
        "def watched(fabric, model, task, loader):\n"
        "    result = evaluate(fabric, model, task, loader)\n"
        "    measured.append({k: v.clone() for k, v in model.state_dict().items()})\n"
        "    torch.save(measured, Path(__file__).with_name(f'rank{fabric.global_rank}.pt'))\n"
        "    return result\n"
        "engine.evaluate = experiment.evaluate = watched\n"
        f"launch(experiment.train, config_root=Path({str(ROOT / 'cfgs')!r}))\n"
    )
    process = torchrun(probe, "tests/tiny.yaml", f"run_dir={tmp_path / 'run'}", *RUN)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert len(first) == len(second) == 6, "four selections, last and selected"
    for a, b in zip(first, second, strict=True):
        for key in a:
            assert torch.equal(a[key], b[key]), key


def test_python_options_survive_the_relaunch(call, tmp_path):
    options = ("train.max_steps=1", "train.select_on=null", "train.measure_test=false")
    status, out, err = call(
        "train_cls.py",
        "tests/tiny.yaml",
        f"run_dir={tmp_path / 'run'}",
        *options,
        *RUN,
        python_options=["-u", "-X", "utf8"],
    )
    assert status == 0, err
    assert "2 cpu device(s)" in out


def test_a_mistake_is_said_once_for_each_process_and_ends_both(call, tmp_path):
    status, _, err = call(
        "train_cls.py", "tests/tiny.yaml", f"run_dir={tmp_path / 'run'}", *RUN, "data.num_train=12"
    )
    assert status != 0
    assert re.search(
        r"^error: train\.batch_size: 12 clouds do not fill one batch of 8 for each of 2 processes",
        err,
        re.MULTILINE,
    )


def test_a_continuation_on_fewer_processes_is_refused(two, tmp_path):
    """The config says nothing of them, since under torchrun its settings count."""
    folder = tmp_path / "run"
    shutil.copytree(two[0], folder)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    process = torchrun(
        ROOT / "scripts/train_cls.py", "tests/tiny.yaml", f"train.resume={folder}", *RUN, processes=1
    )
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert "error: train.resume: the run was started with 2 device(s), got 1; give it" in err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_killed_and_resumed_on_two_processes(call, tmp_path, same_run):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    longer = (*RUN, "train.epochs=20", "train.measure_test=false")
    status, _, err = call("train_cls.py", "tests/tiny.yaml", f"run_dir={whole}", *longer)
    assert status == 0, err
    process = torchrun(ROOT / "scripts/train_cls.py", "tests/tiny.yaml", f"run_dir={cut}", *longer)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (cut / "last.pt").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)  # torchrun hands it on to both
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode != 0
    assert f"train.resume={cut}" in out, err
    assert 0 < torch.load(cut / "last.pt", weights_only=True)["progress"]["step"] < 80
    status, _, err = call("train_cls.py", "tests/tiny.yaml", f"train.resume={cut}", *longer)
    assert status == 0, err
    same_run(cut, whole)


def test_a_limit_of_minutes_does_not_wait_for_the_log(call, tmp_path):
    folder = tmp_path / "run"
    seldom = ("train.log_every=100000", "train.checkpoint_every=100000", "train.evaluate_every=1000")
    options = (*RUN, *seldom, "train.epochs=1000", "train.max_minutes=1e-9", f"run_dir={folder}")
    status, out, err = call("train_cls.py", "tests/tiny.yaml", *options)
    assert (status, "stopped and saved at step 1;" in out) == (143, True), err
    assert torch.load(folder / "last.pt", weights_only=True)["progress"]["step"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP], ids=lambda n: n.name)
def test_what_the_script_is_sent_reaches_the_processes_it_started(start, tmp_path, number):
    folder = tmp_path / "run"
    seldom = ("train.log_every=100000", "train.checkpoint_every=1", "train.evaluate_every=100000")
    options = (*RUN, *seldom, "train.epochs=100000", "optim.schedule.warmup_epochs=0", f"run_dir={folder}")
    process = start("train_cls.py", "tests/tiny.yaml", *options)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (folder / "last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, "stopped and saved at step" in out) == (128 + number, True), err
