"""The loop on toy models, where every number can be had by other means."""

import itertools
import math
import re
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from places import PATIENCE
from torch import nn

from bixt3d.checkpoint import load_checkpoint
from bixt3d.engine import LoopSettings, Stopped, Trainer, evaluate
from bixt3d.optim import ExponentialAverage
from bixt3d.training import progress
from bixt3d.training.experiment import train
from bixt3d.training.progress import ConsoleObserver


class Loader:
    """Batches of ``x`` and ``y`` in order, the same every epoch."""

    def __init__(self, x, y, size):
        self.batches = [SimpleNamespace(x=a, y=b) for a, b in zip(x.split(size), y.split(size), strict=True)]

    def __len__(self):
        return len(self.batches)

    def epoch(self, epoch, start=0):
        return iter(self.batches[start:])


class Regression:
    """Least squares; the meter hands out the figures it was given, in turn."""

    selects = "score"

    def __init__(self, figures=()):
        self.figures = iter(figures)
        self.looked = 0

    def predict(self, model, batch):
        return model(batch.x), batch.y

    def loss(self, prediction, target):
        return F.mse_loss(prediction, target)

    def meter(self):
        self.looked += 1
        figure = next(self.figures, 0.0)
        return SimpleNamespace(
            to=lambda device: SimpleNamespace(
                update=lambda prediction, target: None,
                compute=lambda: SimpleNamespace(summary=lambda: {"score": figure}),
            )
        )


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(48, 5, generator=generator)
    return x, x @ torch.randn(5, 2, generator=generator)


@pytest.fixture
def make_trainer(tmp_path):
    def make(*, lr=0.1, task=None, ema=None, model=None, observer=None, **settings):
        torch.manual_seed(0)
        model = model or nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        return Trainer(
            fabric=Fabric(accelerator="cpu", devices=1),
            model=model,
            task=task or Regression(),
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
            settings=LoopSettings(**{"epochs": 1, "clip_norm": None, "log_every": 1, **settings}),
            folder=tmp_path,
            header={},
            ema=ema and ExponentialAverage(model, ema),
            observer=observer,
        )

    return make


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_steps_are_those_of_a_loop_by_hand(make_trainer, data):
    trainer = make_trainer(epochs=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    for _ in range(2):
        for x, y in zip(data[0].split(16), data[1].split(16), strict=True):
            gradients = torch.autograd.grad(F.mse_loss(model(x), y), list(model.parameters()))
            with torch.no_grad():
                for p, g in zip(model.parameters(), gradients, strict=True):
                    p -= 0.1 * g
    trainer.fit(Loader(*data, 16))
    torch.testing.assert_close(weights(trainer.model), weights(model))
    assert (trainer.progress.step, trainer.progress.epoch, trainer.progress.batch) == (6, 2, 0)


def test_two_batches_of_eight_make_the_step_of_one_of_sixteen(make_trainer, data):
    losses = []
    note = SimpleNamespace(stepped=lambda trainer, loss, end: losses.append(float(loss)))
    whole, halves = make_trainer(observer=note), make_trainer(accumulate=2, observer=note)
    before = weights(whole.model).clone()
    whole.fit(Loader(*data, 16))
    halves.fit(Loader(*data, 8))
    assert whole.progress.step == halves.progress.step == 3
    torch.testing.assert_close(weights(halves.model), weights(whole.model))
    assert losses[:3] == pytest.approx(losses[3:])
    assert not torch.allclose(weights(whole.model), before)


def test_what_a_step_draws_follows_seed_and_step_alone(make_trainer, data):
    def drawn(seed):
        numbers = []

        class Drawing(Regression):
            def predict(self, model, batch):
                numbers.append(float(torch.rand(())))
                return super().predict(model, batch)

        make_trainer(task=Drawing(), epochs=2, seed=seed).fit(Loader(*data, 16))
        return numbers

    first = drawn(0)
    torch.manual_seed(99)
    assert drawn(0) == first
    assert len({*first, *drawn(1)}) == 12, "no two steps drop the same"


def test_batches_that_do_not_fill_a_step_are_left_out(make_trainer, data):
    trainer, exact = make_trainer(accumulate=4, epochs=2), make_trainer(accumulate=4, epochs=2)
    trainer.fit(Loader(*data, 8))  # 6 batches: one step an epoch
    exact.fit(Loader(data[0][:32], data[1][:32], 8))
    assert trainer.progress.step == 2
    assert torch.equal(weights(trainer.model), weights(exact.model))


def test_an_epoch_shorter_than_a_step_is_refused(make_trainer, data):
    with pytest.raises(ValueError, match=r"^train\.accumulate: expected at most 6, .* got 7"):
        make_trainer(accumulate=7).fit(Loader(*data, 8))


@pytest.mark.parametrize(("accumulate", "size"), [(1, 16), (2, 8)])
def test_the_gradient_is_clipped_to_its_norm(make_trainer, data, accumulate, size):
    moved = []

    class Watch:
        before = None

        def stepped(self, trainer, loss, end):
            now = weights(trainer.model).clone()
            moved.append(float((now - self.before).norm()))
            self.before = now

    watch = Watch()
    trainer = make_trainer(lr=1.0, clip_norm=0.05, observer=watch, accumulate=accumulate)
    watch.before = weights(trainer.model).clone()
    trainer.fit(Loader(data[0], 100 * data[1], size))
    assert moved == pytest.approx([0.05] * 3, rel=1e-3), "SGD moves by lr times the clipped gradient"


def test_small_gradients_are_not_clipped(make_trainer, data):
    free, bounded = make_trainer(), make_trainer(clip_norm=1e6)
    free.fit(Loader(*data, 16))
    bounded.fit(Loader(*data, 16))
    assert torch.equal(weights(free.model), weights(bounded.model))


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_no_number_ends_the_run(make_trainer, data, tmp_path, log_every):
    trainer = make_trainer(lr=1e30, epochs=2, log_every=log_every)
    with pytest.raises(
        RuntimeError, match=r"^loss: became (nan|inf) by step \d+; lower optim\.optimizer\.lr"
    ):
        trainer.fit(Loader(*data, 16))
    assert not (tmp_path / "last.pt").exists(), "a checkpoint of such weights would be worth nothing"


def test_a_stop_does_not_save_weights_that_are_no_numbers(make_trainer, data, tmp_path):
    trainer = make_trainer(lr=1e30, log_every=100, checkpoint_every=1)
    trainer.save()
    before = (tmp_path / "last.pt").read_bytes()

    class Stop:
        requested = None

    class Ask:
        def stepped(self, trainer, loss, end):
            Stop.requested = 15 if trainer.progress.step else None

    slow = make_trainer(lr=1e30, log_every=100, epochs=9, observer=Ask())
    batches = Loader(data[0] * 1e20, data[1], 4)
    with pytest.raises(RuntimeError, match=r"^loss: became (nan|inf)"):
        slow.fit(batches, stop=Stop)
    assert (tmp_path / "last.pt").read_bytes() == before


@pytest.mark.parametrize("first", [False, True])
def test_a_step_that_spoils_the_weights_costs_no_checkpoint(make_trainer, data, tmp_path, first):
    """Its loss was computed before it, so that alone looks well; steps 4 to 6 are the second epoch."""
    trainer = make_trainer(epochs=4, task=Regression([10.0, 99.0]), ema=0.5, clip_norm=1.0)
    count = itertools.count(1)
    spoilt = 3 if first else 6
    trainer.model[0].weight.register_hook(lambda g: g * (math.nan if next(count) == spoilt else 1))
    with pytest.raises(RuntimeError, match=rf"^weights: became nan by step {spoilt}; lower") as raised:
        trainer.fit(Loader(*data, 16), Loader(*data, 16))
    if first:
        assert list(tmp_path.iterdir()) == []
        return
    for name in ("best.pt", "last.pt"):
        kept = load_checkpoint(tmp_path / name)
        assert kept["progress"]["step"] == 3
        assert all(value.isfinite().all() for value in kept["model"].values())
    assert str(raised.value).endswith(f"in a new run with train.start_from={tmp_path / 'best.pt'}.")


def test_a_frozen_mask_of_infinities_is_nobodys_spoilt_weight(make_trainer, data, tmp_path):
    trainer = make_trainer()
    mask = torch.nn.Parameter(torch.full((2,), -math.inf), requires_grad=False)
    trainer.model.register_parameter("mask", mask)
    trainer.fit(Loader(*data, 16))
    assert (tmp_path / "last.pt").is_file()


def test_the_best_epoch_is_kept_and_a_tie_goes_to_the_first(make_trainer, data, tmp_path):
    seen = []

    class Watch:
        def stepped(self, trainer, loss, end):
            pass

        def selected(self, trainer, result, better):
            seen.append((trainer.progress.epoch, result["score"], better, weights(trainer.model).clone()))

    task = Regression([10.0, 30.0, 20.0, 30.0])
    trainer = make_trainer(epochs=4, task=task, observer=Watch())
    trainer.fit(Loader(*data, 16), Loader(*data, 16))
    assert [entry[:3] for entry in seen] == [
        (1, 10.0, True),
        (2, 30.0, True),
        (3, 20.0, False),
        (4, 30.0, False),
    ]
    best = load_checkpoint(tmp_path / "best.pt")
    assert best["selection"] == {"score": 30.0}
    assert best["progress"]["best_epoch"] == 2
    assert torch.equal(torch.cat([t.flatten() for t in best["model"].values()]), seen[1][3])
    last = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(torch.cat([t.flatten() for t in last["model"].values()]), seen[3][3])


@pytest.mark.parametrize(
    ("options", "looks"),
    [({"epochs": 5}, 5), ({"epochs": 5, "evaluate_every": 2}, 3), ({"epochs": 5, "max_steps": 4}, 2)],
)
def test_when_the_selection_split_is_looked_at(make_trainer, data, options, looks):
    task = Regression()
    make_trainer(task=task, **options).fit(Loader(*data, 16), Loader(*data, 16))
    assert task.looked == looks


def test_nothing_is_selected_without_a_split(make_trainer, data, tmp_path):
    make_trainer(epochs=2).fit(Loader(*data, 16))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt"]


@pytest.mark.parametrize(("accumulate", "size"), [(1, 16), (2, 8)])
def test_the_schedule_moves_with_every_optimiser_step(make_trainer, data, accumulate, size):
    rates = []
    note = SimpleNamespace(stepped=lambda t, loss, end: rates.append(t.optimizer.param_groups[0]["lr"]))
    trainer = make_trainer(accumulate=accumulate, observer=note)
    trainer.scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: 0.5**step)
    trainer.fit(Loader(*data, size))
    assert rates == pytest.approx([0.05, 0.025, 0.0125])


def test_the_time_of_earlier_stretches_counts(make_trainer, data):
    trainer = make_trainer()
    trainer.progress.seconds = 5000.0
    trainer.fit(Loader(*data, 16))
    assert 5000 < trainer.progress.seconds < 5600


def test_a_stretch_is_as_many_minutes_as_asked_for(make_trainer, data, monkeypatch):
    now = 0.0

    class Slow(Regression):
        def predict(self, model, batch):
            nonlocal now
            now += 25
            assert trainer.model.training
            return super().predict(model, batch)

    monkeypatch.setattr("bixt3d.engine.time.perf_counter", lambda: now)
    trainer = make_trainer(task=Slow(), epochs=9, max_minutes=1.0)
    trainer.model.eval()  # as somebody may have left it
    with pytest.raises(Stopped):
        trainer.fit(Loader(*data, 16))
    assert (trainer.progress.step, trainer.progress.seconds) == (3, 75)


def test_max_steps_ends_within_an_epoch(make_trainer, data):
    trainer = make_trainer(epochs=9, max_steps=4)
    trainer.fit(Loader(*data, 16))
    assert (trainer.progress.step, trainer.progress.epoch, trainer.progress.batch) == (4, 1, 1)


def test_the_running_average_is_what_counts(make_trainer, data, tmp_path):
    looked_at = []

    class Watched(Regression):
        def predict(self, model, batch):
            if not torch.is_grad_enabled():
                looked_at.append(model)
            return super().predict(model, batch)

    trainer = make_trainer(ema=0.9, epochs=3, task=Watched())
    trainer.fit(Loader(*data, 16), Loader(*data, 16))
    assert looked_at == [trainer.result_model] * 9, "the average is what is selected"
    averaged = load_checkpoint(tmp_path / "last.pt")["model"]
    assert trainer.result_model is not trainer.model
    for key, value in trainer.result_model.state_dict().items():
        assert torch.equal(averaged[key], value)
    assert not torch.equal(averaged["0.weight"], trainer.model[0].weight)


def test_progress_is_shown_and_logged_without_an_experiment(make_trainer, data, tmp_path, capsys):
    with ConsoleObserver(tmp_path, step=0, samples_per_step=16, split="val") as observer:
        make_trainer(task=Regression([40.0]), observer=observer).fit(Loader(*data, 16), Loader(*data, 16))
    assert "· val score 40.00 · best so far ·" in capsys.readouterr().out
    for name, steps in (("train", ["1", "2", "3"]), ("selection", ["3"])):
        _, *rows = (tmp_path / f"{name}.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == steps


def test_a_log_that_is_no_terminal_gets_whole_lines_also_where_nothing_is_selected(
    make_trainer, data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "30")
    with ConsoleObserver(tmp_path, step=0, samples_per_step=16) as observer:
        make_trainer(observer=observer, epochs=2).fit(Loader(*data, 16))
    assert re.fullmatch(
        r"epoch   2 · step      6 of 6 · loss \d\.\d{3} · [\d,]+ samples/s\n", capsys.readouterr().out
    )
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with ConsoleObserver(tmp_path / "more", step=0, samples_per_step=16, split="val") as observer:
        make_trainer(task=Regression([40.0]), observer=observer, log_every=2).fit(
            Loader(*data, 16), Loader(*data, 16)
        )
    lines = [line.split(" · ")[1:3] for line in capsys.readouterr().out.splitlines()]
    assert [step.split()[1] for step, _ in lines] == ["2", "3", "3"]
    assert lines[-1][1] == "val score 40.00"


@pytest.mark.parametrize("broken", ["__init__", "load", "fit"])
def test_the_display_is_closed_wherever_a_run_breaks(tiny, tiny_run, tmp_path, monkeypatch, capsys, broken):
    """A terminal gets its cursor back, and no thread goes on writing curves."""

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    for name, value in (("TTY_COMPATIBLE", "1"), ("FORCE_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    monkeypatch.setattr(Trainer, broken, fail)
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="out of memory"):
        train(tiny(f"train.resume={folder}"))
    out = capsys.readouterr().out
    hidden, shown = (out.rfind(f"\x1b[?25{code}") for code in "lh")
    assert 0 < hidden < shown
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)  # told to end, the display's thread may still be awake for a moment
        assert not thread.is_alive()


def test_a_stop_is_saved_and_raised(make_trainer, data, tmp_path):
    trainer = make_trainer(epochs=3)
    with pytest.raises(Stopped) as stopped:
        trainer.fit(Loader(*data, 16), stop=SimpleNamespace(requested=15))
    assert stopped.value.signal_number == 15
    assert load_checkpoint(tmp_path)["progress"]["step"] == 1


def test_evaluate_measures_in_evaluation_mode_and_restores_training():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(5))
    seen = []
    meter = SimpleNamespace(update=lambda p, t: seen.append((p, t, model.training)), compute=lambda: "result")
    task = SimpleNamespace(
        predict=lambda m, batch: (m(batch.x), batch.y), meter=lambda: SimpleNamespace(to=lambda device: meter)
    )
    x = torch.randn(7, 5)
    fabric = Fabric(accelerator="cpu", devices=1)
    assert evaluate(fabric, model, task, Loader(x, x, 3)) == "result"
    assert [len(p) for p, _, _ in seen] == [3, 3, 1], "every cloud, the uneven last batch too"
    assert not any(training or p.requires_grad for p, _, training in seen)
    torch.testing.assert_close(torch.cat([p for p, _, _ in seen]), x / math.sqrt(1 + 1e-5))
    assert model.training
    assert model[1].num_batches_tracked == 0
    model.eval()
    evaluate(fabric, model, task, Loader(x, x, 3))
    assert not model.training


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_evaluation_has_the_precision_of_training(precision, dtype):
    seen = []
    meter = SimpleNamespace(update=lambda p, t: seen.append(p.dtype), compute=lambda: None)
    task = SimpleNamespace(
        predict=lambda m, batch: (m(batch.x), batch.y), meter=lambda: SimpleNamespace(to=lambda device: meter)
    )
    x = torch.randn(4, 5)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    evaluate(fabric, nn.Linear(5, 2), task, Loader(x, x, 4))
    assert seen == [dtype]


def test_training_learns_sixteen_clouds_by_heart(tiny, one_thread, tmp_path):
    """The same clouds to train and to select on, so the figure that is logged is the one on training data."""
    from bixt3d.datasets import Shapes
    from bixt3d.evaluation.evaluate import evaluate_checkpoint

    options = (
        "data.num_train=16",
        "train.sampling=first",
        "train.select_on=null",
        "train.measure_test=false",
    )
    calm = (
        "model.encoder.drop_path=0",
        "model.encoder.dropout=0",
        "augment.transforms=[]",
        "train.ema_decay=null",
    )
    length = (
        "train.epochs=60",
        "optim.optimizer.lr=0.005",
        "optim.schedule.warmup_epochs=5",
        "train.log_every=60",
    )
    folder = train(tiny(f"run_dir={tmp_path / 'run'}", *options, *calm, *length))
    assert len(set(Shapes(num_train=16, num_points=32).load("train").labels.tolist())) == 12
    assert evaluate_checkpoint(folder, split="train").summary()["OA"] == 100.0
    assert evaluate_checkpoint(folder, ["data.seed=1"], split="train").summary()["OA"] < 100.0
