"""A run that was cut, in whatever way and wherever, ends exactly as the run that was not."""

import re
import signal
import time

import pytest
import torch

from bixt3d.engine import Stopped
from bixt3d.training import experiment

STEPS, STEPS_PER_EPOCH = 16, 4  # of tests/tiny.yaml
GROUPING = (
    "model=bixt_grouping",
    "model.encoder.refinement.num_neighbors=4",
    "model.encoder.refinement.width=8",
)
VARIANTS = {
    "plain": (),
    "accumulate": ("train.accumulate=2", "train.checkpoint_every=1"),
    "grouping": GROUPING,
    "momentum, no average": ("optim=sgd_pointmlp", "train.ema_decay=null", "train.evaluate_every=3"),
    "mixed and bent": (
        "augment=scale_shift_mix",
        "augment.transforms.0._target_=bixt3d.datasets.wolf.PointWOLF",
        "~augment.transforms.0.low",
        "~augment.transforms.0.high",
        "~augment.transforms.0.anisotropic",
    ),
    "bf16": ("train.precision=bf16-mixed", "train.sampling=first"),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def train_until(monkeypatch):
    """Train in this process; as soon as ``step`` is done the run is asked to stop, as by SIGTERM."""

    def run(config, step=None):
        trainers = []

        class Watched(experiment.Trainer):
            def __init__(self, **parts):
                super().__init__(**parts)
                trainers.append(self)

        class Stop:
            def __enter__(self):
                return self

            def __exit__(self, *exception):
                pass

            @property
            def requested(self):
                return signal.SIGTERM if step is not None and trainers[0].progress.step >= step else None

        monkeypatch.setattr(experiment, "Trainer", Watched)
        monkeypatch.setattr(experiment, "StopRequest", Stop)
        return experiment.train(config)

    return run


@pytest.fixture(scope="module")
def uninterrupted(tiny, one_thread, tiny_run, tmp_path_factory):
    """Return the folder of the uninterrupted run of a variant, trained once."""
    folders = {"plain": tiny_run}

    def get(name):
        if name not in folders:
            folder = tmp_path_factory.mktemp("whole") / "run"
            config = tiny(f"run_dir={folder}", "train.measure_test=false", *VARIANTS[name])
            folders[name] = experiment.train(config)
        return folders[name]

    return get


def stop_and_resume(tiny, train_until, folder, overrides, stops):
    quick = ("train.measure_test=false", *overrides)
    for number, step in enumerate(stops):
        begin = f"train.resume={folder}" if number else f"run_dir={folder}"
        with pytest.raises(Stopped) as stopped:
            train_until(tiny(begin, *quick), step)
        assert stopped.value.signal_number == signal.SIGTERM
        assert torch.load(folder / "last.pt", weights_only=True)["progress"]["step"] == step
    train_until(tiny(f"train.resume={folder}", *quick))


@pytest.mark.parametrize("step", [STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1, STEPS - 1])
def test_stopped_at_any_step_and_resumed_ends_as_if_never_stopped(
    tiny, train_until, uninterrupted, same_run, tmp_path, step
):
    stop_and_resume(tiny, train_until, tmp_path / "run", (), [step])
    same_run(tmp_path / "run", uninterrupted("plain"))


def test_stopped_after_every_step(tiny, train_until, uninterrupted, same_run, tmp_path):
    stop_and_resume(tiny, train_until, tmp_path / "run", (), range(1, STEPS))
    same_run(tmp_path / "run", uninterrupted("plain"))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "plain"])
def test_every_kind_of_state_is_kept(tiny, train_until, uninterrupted, same_run, tmp_path, name):
    steps = 2 if name == "accumulate" else STEPS_PER_EPOCH
    stop_and_resume(tiny, train_until, tmp_path / "run", VARIANTS[name], [1, steps, steps + 1])
    same_run(tmp_path / "run", uninterrupted(name))


def test_stop_in_the_last_step_finishes_the_run(tiny, train_until, uninterrupted, same_run, tmp_path):
    train_until(tiny(f"run_dir={tmp_path / 'run'}", "train.measure_test=false"), STEPS)
    same_run(tmp_path / "run", uninterrupted("plain"))


def test_a_continuation_may_name_the_checkpoint_and_log_otherwise(
    tiny, train_until, uninterrupted, same_run, tmp_path
):
    folder = tmp_path / "run"
    with pytest.raises(Stopped):
        train_until(tiny(f"run_dir={folder}"), 5)
    free = (
        "train.log_every=7",
        "train.measure_test=false",
        "train.eval_batch_size=5",
        "train.checkpoint_every=2",
        "train.max_minutes=60",
        "train.targets=[50]",
        "model.encoder.checkpoint_activations=true",
    )
    assert train_until(tiny(f"train.resume={folder / 'last.pt'}", *free)) == folder
    ours, theirs = (
        torch.load(f / "last.pt", weights_only=True)["model"] for f in (folder, uninterrupted("plain"))
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_resuming_a_finished_run_changes_nothing(tiny, train_until, same_run, tmp_path):
    folder = tmp_path / "run"
    train_until(
        tiny(
            f"run_dir={folder}",
            "train.measure_test=false",
            "train.epochs=1",
            "optim.schedule.warmup_epochs=0",
        )
    )
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.glob("*.*"):
        copy.joinpath(path.name).write_bytes(path.read_bytes())
    train_until(
        tiny(
            f"train.resume={folder}",
            "train.measure_test=false",
            "train.epochs=1",
            "optim.schedule.warmup_epochs=0",
        )
    )
    same_run(folder, copy)


def test_cut_between_the_selection_and_its_checkpoint(
    tiny, train_until, uninterrupted, same_run, tmp_path, monkeypatch
):
    """The rows of that selection are on disk, but the checkpoint knows nothing of it."""
    folder = tmp_path / "run"
    save = experiment.Trainer.save

    class PowerCut(Exception):
        pass

    def save_until_second_epoch(trainer):
        if trainer.progress.epoch == 2 and trainer.progress.batch == 0:
            raise PowerCut
        save(trainer)

    monkeypatch.setattr(experiment.Trainer, "save", save_until_second_epoch)
    with pytest.raises(Stopped):  # a stop at the end of the epoch, before it is counted
        train_until(tiny(f"run_dir={folder}", "train.measure_test=false"), 2 * STEPS_PER_EPOCH)
    for _ in range(2):
        with pytest.raises(PowerCut):
            train_until(tiny(f"train.resume={folder}", "train.measure_test=false"))
    monkeypatch.setattr(experiment.Trainer, "save", save)
    train_until(tiny(f"train.resume={folder}", "train.measure_test=false"))
    same_run(folder, uninterrupted("plain"))


def test_half_a_row_left_by_a_crash_is_removed(tiny, train_until, uninterrupted, same_run, tmp_path):
    folder = tmp_path / "run"
    quick = "train.measure_test=false"
    with pytest.raises(Stopped):
        train_until(tiny(f"run_dir={folder}", quick), 6)
    with (folder / "train.csv").open("a") as file:
        file.write("7,1,2.4,0.01,100\r\n8,1,2.")
    train_until(tiny(f"train.resume={folder}", quick))
    same_run(folder, uninterrupted("plain"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.seed=1", "train.seed=3, got 1"),
        ("optim.optimizer.lr=0.5", "optim.optimizer.lr=0.02, got 0.5"),
        ("train.epochs=9", "train.epochs=4, got 9"),
    ],
)
def test_a_continuation_with_other_settings_is_refused(tiny, tiny_run, override, said):
    before = (tiny_run / "last.pt").read_bytes()
    with pytest.raises(ValueError, match=r"^train.resume: ") as refused:
        experiment.train(tiny(f"train.resume={tiny_run}", override))
    assert said in str(refused.value)
    assert str(refused.value).endswith(f" train.start_from={tiny_run / 'last.pt'}.")
    assert (tiny_run / "last.pt").read_bytes() == before


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny, tiny_run):
    with pytest.raises(ValueError, match=r"holds a run already.*train\.resume="):
        experiment.train(tiny(f"run_dir={tiny_run}"))


def test_a_folder_without_a_run_cannot_be_resumed(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"last\.pt: no such checkpoint"):
        experiment.train(tiny(f"train.resume={tmp_path}"))


def test_the_best_weights_are_no_run_to_continue(tiny, tiny_run):
    with pytest.raises(ValueError, match=r"^train\.resume: .*last\.pt, which best\.pt is not") as refused:
        experiment.train(tiny(f"train.resume={tiny_run / 'best.pt'}"))
    assert f"train.start_from={tiny_run / 'best.pt'}" in str(refused.value)


@pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="auto takes a device here"
)
@pytest.mark.parametrize(("first", "then"), [("cpu", "auto"), ("auto", "cpu")])
def test_auto_is_the_device_that_it_takes(tiny, tmp_path, first, then):
    folder, quick = tmp_path / "run", ("train.measure_test=false", "train.select_on=null")
    experiment.train(tiny(f"run_dir={folder}", f"train.accelerator={first}", "train.max_steps=1", *quick))
    again = (f"train.resume={folder}", f"train.accelerator={then}", "train.max_steps=2", *quick)
    experiment.train(tiny(*again))
    assert torch.load(folder / "last.pt", weights_only=True)["progress"]["step"] == 2


# Longer, so that the signal surely comes in the middle.
LONG = ("train.epochs=10", "train.measure_test=false", "train.evaluate_every=3")


@pytest.fixture(scope="module")
def long_run(tiny, one_thread, tmp_path_factory):
    return experiment.train(tiny(f"run_dir={tmp_path_factory.mktemp('long') / 'run'}", *LONG))


def signal_in_the_middle(start, folder, number, begin):
    """Run the tiny config for long and send a signal after the first save; returns status and output."""
    checkpoint = folder / "last.pt"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    process = start("train_cls.py", "tests/tiny.yaml", begin, *LONG)
    try:
        deadline = time.monotonic() + 300
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    step = torch.load(checkpoint, weights_only=True)["progress"]["step"]
    assert 0 < step < 40, "the run was over before the signal came"
    return process.returncode, out, err


def test_killed_in_the_middle_and_resumed(start, tiny, long_run, same_run, tmp_path):
    folder = tmp_path / "run"
    status, _, _ = signal_in_the_middle(start, folder, signal.SIGKILL, f"run_dir={folder}")
    assert status == -signal.SIGKILL
    experiment.train(tiny(f"train.resume={folder}", *LONG))
    same_run(folder, long_run)


def test_sigterm_and_ctrl_c_leave_cleanly_and_say_how_to_continue(start, tiny, long_run, same_run, tmp_path):
    folder = tmp_path / "run"
    status, out, err = signal_in_the_middle(start, folder, signal.SIGTERM, f"run_dir={folder}")
    assert (status, err) == (143, "")
    resume = re.search(r"continue with the same command and (train\.resume=\S+)", out).group(1)
    status, out, err = signal_in_the_middle(start, folder, signal.SIGINT, resume)
    assert (status, err) == (130, "")
    assert resume in out
    experiment.train(tiny(resume, *LONG))
    same_run(folder, long_run)
