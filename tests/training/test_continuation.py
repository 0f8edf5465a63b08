"""What a continuation may not change: the clouds, their labels, the number of devices; what it leaves as it was."""

import json
import os
import re
import shutil
import time
from datetime import datetime

import numpy as np
import pytest

from bixt3d.checkpoint import load_checkpoint, save_checkpoint
from bixt3d.config import from_yaml
from bixt3d.training.experiment import train
from bixt3d.training.logs import RunLog

pytestmark = pytest.mark.usefixtures("one_thread")
TRAINED = ("train.measure_test=false", "train.batch_size=4", "data.val_fraction=0.25")
STEPS = 7  # two epochs of three steps, and one step more


def clouds(root, train, names=("ball", "box")):
    """Write a folder data set: so many clouds of each class in train, two in test."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", 2)):
        for name in names:
            place = root / split / name
            place.mkdir(parents=True)
            for i in range(count):
                np.save(place / f"{i:02}.npy", random.normal(size=(40, 3)))
    return root


@pytest.fixture(scope="module")
def made(tiny, one_thread, tmp_path_factory):
    """A run over a folder of eight clouds a class, of which two are held out, that stands at ``STEPS``."""
    root = clouds(tmp_path_factory.mktemp("made") / "first", 8)
    folder = root.parent / "run"
    given = ("data=folder", f"data.root={root}", f"run_dir={folder}", f"train.max_steps={STEPS}")
    config = tiny(*given, *TRAINED, *unshaped())
    return train(config)


def unshaped():
    return ("~data.num_train", "~data.num_val", "~data.num_test")


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def go_on(tiny, run):
    def resumed(root, *more):
        given = ("data=folder", f"data.root={root}", f"train.resume={run}", "train.max_steps=8")
        return train(tiny(*given, *TRAINED, *unshaped(), *more))

    return resumed


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def as_an_older_version(run):
    """Make a checkpoint one of an older version."""
    saved = load_checkpoint(run)
    save_checkpoint(run / "last.pt", {k: v for k, v in saved.items() if k != "trained_on"})


@pytest.mark.parametrize(
    ("old", "said"), [(False, "12 training clouds, got 18"), (True, "3 steps an epoch, got 4")]
)
def test_another_number_of_clouds_is_refused(run, go_on, tmp_path, old, said):
    if old:
        as_an_older_version(run)
    before = content(run)
    with pytest.raises(
        ValueError, match=rf"^train\.resume: the run was started with {said}; give it the data"
    ):
        go_on(clouds(tmp_path / "more", 12))
    assert content(run) == before


@pytest.mark.parametrize("old", [False, True])
def test_classes_that_are_numbered_otherwise_are_refused(run, go_on, tmp_path, old):
    """``ball`` is renamed to ``cone``: as many classes, in another order."""
    if old:
        as_an_older_version(run)
    before = content(run)
    with pytest.raises(ValueError, match=r"last\.pt: was trained on other classes \(2, number 1 is 'ball'\)"):
        go_on(clouds(tmp_path / "renamed", 8, names=("cone", "box")))
    assert content(run) == before


@pytest.mark.parametrize("old", [False, True])
def test_the_same_clouds_may_lie_elsewhere(run, go_on, tmp_path, old):
    if old:
        as_an_older_version(run)
    go_on(clouds(tmp_path / "moved", 8))
    assert load_checkpoint(run)["progress"]["step"] == 8


def test_another_number_of_devices_is_refused(tiny, tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    saved = load_checkpoint(folder)
    assert saved["trained_on"] == {"clouds": 76, "devices": 1, "steps_per_epoch": 4}
    save_checkpoint(folder / "last.pt", {**saved, "trained_on": {**saved["trained_on"], "devices": 2}})
    before = content(folder)
    with pytest.raises(
        ValueError, match=r"^train\.resume: .* 2 device\(s\), got 1;.*train\.start_from="
    ) as refused:
        train(tiny(f"train.resume={folder}"))
    assert content(folder) == before
    way_back = re.search(r"train\.start_from=(\S+)\.$", str(refused.value)).group(1)
    assert load_checkpoint(way_back)["progress"]["step"] == 16


def test_a_run_says_when_where_and_on_how_many_devices_it_was_made(tiny_run):
    made = json.loads((tiny_run / "environment.json").read_text())
    assert made["devices"] == json.loads((tiny_run / "results.json").read_text())["devices"] == 1
    assert abs((datetime.now().astimezone() - datetime.fromisoformat(made["date"])).total_seconds()) < 86_400
    assert made["host"]


def test_the_config_that_is_kept_is_that_of_the_run_not_of_a_continuation(tiny, tmp_path):
    folder, quick = tmp_path / "run", ("train.measure_test=false", "train.select_on=null")
    train(tiny(f"run_dir={folder}", "train.max_steps=1", *quick))
    written = (folder / "config.yaml").read_text()
    train(tiny(f"train.resume={folder}", "train.max_steps=2", *quick))
    assert (folder / "config.yaml").read_text() == written
    kept = from_yaml(load_checkpoint(folder)["config"])
    assert (kept["train"]["resume"], kept["train"]["max_steps"]) == (None, 2)


def test_two_folders_are_one_too_many(tiny, tiny_run, tmp_path):
    before = content(tiny_run)
    with pytest.raises(ValueError, match=r"^run_dir: .*again is another folder than .*, which train\.resume"):
        train(tiny(f"train.resume={tiny_run}", f"run_dir={tmp_path / 'again'}"))
    assert content(tiny_run) == before
    assert not (tmp_path / "again").exists()


def test_what_killed_saves_left_is_removed(tiny, tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    left = [folder / name for name in (".last.0123abcd.pt", ".best.0123abcd.pt", ".last.4567abcd.pt")]
    for path in left:
        path.write_bytes(b"half")
    for path in left[:2]:
        os.utime(path, (time.time() - 2 * 3600,) * 2)
    # by the folder's own name, written otherwise
    given = (f"train.resume={folder / 'last.pt'}", f"run_dir={folder / '..' / 'run'}")
    train(tiny(*given, "train.measure_test=false"))
    assert [path.exists() for path in left] == [False, False, True], "the last may be written just now"


def test_curves_of_a_run_killed_before_its_first_checkpoint_begin_anew(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for last in (4, 3):
        log = RunLog(tmp_path)
        for step in range(1, last + 1):
            log.write("train", step, loss=float(last))
        log.close()
        time.sleep(1.1)  # files of events are read in the order of their names, which count seconds
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in shown] == [(1, 3.0), (2, 3.0), (3, 3.0)]
    assert (tmp_path / "train.csv").read_text().split() == ["step,loss", "1,3", "2,3", "3,3"]
