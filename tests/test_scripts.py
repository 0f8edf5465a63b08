"""The command line: what it prints, how it exits, and that evaluation gives the figures of training."""

import json
import re
import runpy
import shutil
import sys

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from places import ROOT

from bixt3d.evaluation.evaluate import evaluate_checkpoint

TINY = "tests/tiny.yaml"
CPU = "train.accelerator=cpu"
GROUPING = ("model=bixt_grouping", "model.encoder.refinement.width=8")
# What is wrong, the arguments, and what the one line must say.
MISTAKES = {
    "unknown key": ([TINY, "train.epocs=3"], r"train\.epocs: unknown key; expected one of .*epochs"),
    "unknown added key": ([TINY, "+train.epocs=3"], r"train: unknown key 'epocs' .*expected one of .*epochs"),
    "unknown optim key": (
        [TINY, "+optim.decay=3"],
        r"optim: unknown key 'decay'; expected decay_all, groups, optim",
    ),
    "unknown node": ([TINY, "+modle.x=3"], r"config: unknown key 'modle'; expected augment, data, model"),
    "unknown option": ([TINY, "model=bixt"], r"Could not find 'model/bixt' Available options .*bixt_naive"),
    "unknown target": (
        [TINY, "data._target_=bixt3d.datasets.Shape"],
        r"data\._target_: .* cannot be imported",
    ),
    "missing value": (
        [TINY, "data.seed=???"],
        r"data\.seed: has no value yet; give one with data\.seed=VALUE",
    ),
    "missing node": ([TINY, "~augment"], r"config: missing key 'augment'; expected augment, data"),
    "wrong type": ([TINY, "train.epochs=x"], r"train\.epochs: expected a whole number, got 'x'"),
    "out of range": ([TINY, "train.batch_size=0"], r"train\.batch_size: expected at least 1, got 0"),
    "unknown choice": ([TINY, "train.precision=fp8"], r"train\.precision: expected one of 16-mixed, 32-true"),
    "no such device": ([TINY, "train.precision=16-mixed"], r"train\.precision: 16-mixed needs a CUDA device"),
    "heads": ([TINY, "model.encoder.num_heads=3"], r"model: num_heads: expected a .*divisor of .* 32, got 3"),
    "neighbours": (
        [TINY, *GROUPING, "model.encoder.refinement.num_neighbors=33"],
        r"data\.num_points: the model's grouping needs at least 33 points .*, got 32",
    ),
    "normals": ([TINY, "data.normals=true"], r"model\.tokenizer\.in_channels: the model takes 3 .* has 6"),
    "widths": ([TINY, "model.tokenizer.dim=16"], r"model: tokenizer\.dim: expected .* 32, got 16"),
    "a key that is not written": (
        [TINY, "model.encoder.refine=before"],
        r"model\.encoder\.refine: .*BiXTEncoder takes it; add it .*: \+model\.encoder\.refine=before$",
    ),
    "a list that is not written": (
        [TINY, "optim.optimizer.betas=[0.9,0.99]"],
        r"AdamW takes it; .*: \+optim\.optimizer\.betas=\[0\.9,0\.99\]$",
    ),
    "inside a node that is not there": (
        [TINY, "model.encoder.refinement.width=3"],
        r"model\.encoder\.refinement: unknown key",
    ),
    "no such entry": (
        [TINY, "augment.transforms.7.std=1"],
        r"augment\.transforms\[7\]: there is no such entry; the list has 3",
    ),
    "a value for a node": ([TINY, "optim.schedule=null"], r"optim\.schedule: expected a node .* got None"),
    "learning rate": (
        [TINY, "optim.optimizer.lr=abc"],
        r"optim\.optimizer\.lr: expected a number, got 'abc'",
    ),
    "negative rate": ([TINY, "optim.optimizer.lr=-1"], r"optim\.optimizer: Invalid learning rate: -1"),
    "seed": ([TINY, "train.seed=-1"], r"train\.seed: expected at least 0, got -1"),
    "average": ([TINY, "train.ema_decay=2"], r"train\.ema_decay: expected .* below 1, or null, got 2"),
    "segmenter": (
        [TINY, "model=bixt_seg_naive"],
        r"model: .*BiXTSegmenter does not fit the task Classification, .* no num_classes; choose .*=bixt_naive",
    ),
    "classifier": (
        [TINY, "task=part_segmentation"],
        r"BiXTClassifier does not fit the task PartSegmentation, .* no num_categories and no num_parts; choose",
    ),
    "batch": (
        [TINY, "train.batch_size=77"],
        r"train\.batch_size: 76 clouds do not fill one batch of 77; lower it",
    ),
    "accumulate": ([TINY, "train.accumulate=5"], r"train\.accumulate: expected at most 4, .* got 5"),
    "warm-up": (
        [TINY, "optim.schedule.warmup_epochs=4"],
        r"optim\.schedule: warmup_epochs: .*below the 4 epochs",
    ),
    "no data": (
        ["cfgs/modelnet40_naive.yaml", "data.root=nowhere"],
        r"nowhere.*scripts/prepare_data\.py modelnet40",
    ),
    "no config": (
        ["cfgs/nothing.yaml"],
        r"cfgs/nothing\.yaml: no such config; expected the path of a YAML file",
    ),
    "no run": ([TINY, "train.resume=nowhere"], r"nowhere/last\.pt: no such checkpoint"),
    "syntax": ([TINY, "train.epochs=[1"], r"\[1"),
    "diverges": (
        [TINY, "optim.optimizer.lr=1e30", "train.clip_norm=null"],
        r"loss: became .* by step \d+; lower",
    ),
}


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """Run a script in this process, in the repository's root; returns exit status, stdout and stderr."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("BIXT3D_TRACEBACK", raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # what the script sets; undone afterwards

    def run(script, *arguments):
        GlobalHydra.instance().clear()
        path = ROOT / "scripts" / script
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as ended:
            code = ended.code
        out, err = capsys.readouterr()
        if isinstance(code, str):  # what the interpreter makes of sys.exit("...")
            code, err = 1, f"{err}{code}\n"
        return code or 0, out, err

    yield run
    GlobalHydra.instance().clear()


def assert_one_line(status, err, said):
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert re.search(said, err), err


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_one_line(here, one_thread, tmp_path, name):
    arguments, said = MISTAKES[name]
    folder = [] if name == "no config" else [f"run_dir={tmp_path / 'run'}"]
    status, _, err = here("train_cls.py", *arguments, *folder)
    assert_one_line(status, err, said)
    assert not (tmp_path / "run" / "last.pt").exists()
    assert name == "diverges" or not (tmp_path / "run").exists(), "found before the first step"


def test_a_mistake_on_the_real_command_line(call, tmp_path):
    status, out, err = call("train_cls.py", TINY, "train.epocs=3", f"run_dir={tmp_path / 'run'}")
    assert_one_line(status, err, MISTAKES["unknown key"][1])
    assert out == ""


def test_a_bug_in_a_model_of_ones_own_ends_with_its_place_and_one_line(here, tmp_path, monkeypatch):
    (tmp_path / "mybug.py").write_text(
        "from torch import nn\n"
        "class Bug(nn.Module):\n"
        "    def __init__(self, num_classes: int, **others):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(4, num_classes)\n"
        "    def forward(self, points):\n"
        "        return self.head(points).amax(dim=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = ("model._target_=mybug.Bug", f"run_dir={tmp_path / 'run'}")
    status, _, err = here("train_cls.py", TINY, *model)
    *shown, last = err.splitlines()
    assert status == 1
    assert shown[0] == "Traceback (most recent call last):"
    assert any(line.endswith('mybug.py", line 7, in forward') for line in shown)
    assert last.startswith("error: mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_on_the_real_command_line(call, tmp_path, name):
    arguments, said = MISTAKES[name]
    folder = [] if name == "no config" else [f"run_dir={tmp_path / 'run'}"]
    status, _, err = call("train_cls.py", *arguments, *folder)
    assert_one_line(status, err, said)


def test_a_config_that_is_no_yaml(here, tmp_path):
    (tmp_path / "bad.yaml").write_text("train: [1\n")
    status, _, err = here("train_cls.py", tmp_path / "bad.yaml")
    assert_one_line(status, err, r"bad\.yaml")


def test_without_a_config_the_usage_names_those_there_are(here):
    status, out, err = here("train_cls.py")
    assert (status, out) == (2, "")
    assert "usage: python" in err
    assert "quickstart" in err
    status, out, err = here("train_cls.py", "--help")
    assert (status, err) == (0, "")
    assert "CONFIG.yaml" in out


def test_hydra_shows_the_config_and_its_help(here):
    for arguments in (["train.epochs=7", "--cfg", "job"], ["--cfg", "job", "train.epochs=7"]):
        status, out, err = here("train_cls.py", TINY, *arguments)
        assert (status, err) == (0, "")
        assert "  epochs: 7\n" in out
        assert "_target_: bixt3d.models.BiXTClassifier" in out
    status, out, err = here("train_cls.py", TINY, "--help")
    assert (status, err) == (0, "")
    assert "Override anything in the config" in out


@pytest.mark.slow
def test_multirun_trains_every_combination(call, tmp_path):
    runs = tmp_path / "runs"
    status, _, err = call(
        "train_cls.py",
        ROOT / TINY,
        "train.epochs=2",
        "--multirun",
        "train.seed=0,1",
        f"run_dir={runs}/seed${{train.seed}}",
        cwd=tmp_path,
    )
    assert (status, err) == (0, "")
    figures = [json.loads((runs / f"seed{seed}" / "results.json").read_text()) for seed in (0, 1)]
    assert [f["seed"] for f in figures] == [0, 1]
    assert [f["steps"] for f in figures] == [8, 8]
    assert [p.name for p in tmp_path.iterdir()] == ["runs"], "nothing else is written where it was started"


def test_a_run_shorter_than_its_first_row_of_the_log(here, one_thread, tmp_path):
    folder = tmp_path / "run"
    options = ("train.max_steps=3", "train.log_every=10", f"run_dir={folder}")
    status, out, err = here("train_cls.py", TINY, *options)
    assert (status, err) == (0, "")
    assert "OA" in out
    assert [line.split(",")[0] for line in (folder / "train.csv").read_text().splitlines()] == ["step", "3"]
    assert (folder / "curves.png").exists()


def test_a_data_set_without_a_test_split_is_refused_before_training(here, one_thread, tmp_path):
    points = np.random.default_rng(0).normal(size=(40, 64, 3))
    for n, cloud in enumerate(points):
        path = tmp_path / "data" / "train" / "ab"[n % 2] / f"{n}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, cloud)
    data = (
        "data=folder",
        f"data.root={tmp_path / 'data'}",
        "data.num_points=32",
        f"run_dir={tmp_path / 'run'}",
    )
    status, _, err = here("train_cls.py", TINY, *data)
    assert_one_line(status, err, r"test")
    assert not (tmp_path / "run").exists()


def test_what_a_run_leaves_in_its_folder(tiny_run):
    names = {p.name for p in tiny_run.iterdir()}
    assert {"best.pt", "last.pt", "config.yaml", "environment.json", "results.json"} <= names
    assert {
        "train.csv",
        "selection.csv",
        "confusion.csv",
        "confusion.png",
        "per_class.csv",
        "predictions.csv",
        "tensorboard",
    } <= names
    assert not [n for n in names if n.startswith(".")], "no temporary file is left"
    environment = json.loads((tiny_run / "environment.json").read_text())
    assert {"command", "git_commit", "torch", "python"} <= set(environment)


@pytest.mark.parametrize(
    ("checkpoint", "which"), [("best.pt", "selected"), ("last.pt", "last"), ("", "last")]
)
def test_evaluation_gives_the_figures_of_training(tiny_run, one_thread, checkpoint, which):
    trained = json.loads((tiny_run / "results.json").read_text())["results"]
    assert trained["last"] != trained["selected"], "else this test could not tell them apart"
    assert evaluate_checkpoint(tiny_run / checkpoint, [CPU]).summary() == trained[which]


def test_evaluation_of_the_split_that_selected(tiny_run, one_thread):
    rows = (tiny_run / "selection.csv").read_text().splitlines()
    logged = [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]
    best = max(float(row["OA"]) for row in logged)
    assert evaluate_checkpoint(tiny_run / "best.pt", [CPU], split="val").summary()["OA"] == pytest.approx(
        best, rel=1e-5
    )


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_size_of_an_evaluation_batch_does_not_matter(tiny_run, one_thread, size):
    trained = json.loads((tiny_run / "results.json").read_text())["results"]["last"]
    assert evaluate_checkpoint(tiny_run, [CPU, f"train.eval_batch_size={size}"]).summary() == trained


def test_evaluation_from_the_checkpoint_alone_and_from_elsewhere(call, tiny_run, tmp_path):
    """Nothing but the file, in a folder of its own; the report goes where it is asked for."""
    shutil.copy(tiny_run / "best.pt", tmp_path / "weights.pt")
    status, out, err = call("evaluate.py", "weights.pt", "out=report", CPU, cwd=tmp_path)
    assert (status, err) == (0, "")
    trained = json.loads((tiny_run / "results.json").read_text())["results"]["selected"]
    measured = json.loads((tmp_path / "report" / "results.json").read_text())
    assert measured["results"]["checkpoint"] == trained
    assert measured["split"] == "test"
    assert f"OA {trained['OA']:.2f} %, mAcc {trained['mAcc']:.2f} %" in out
    assert (tmp_path / "report" / "confusion.csv").read_text() == (tiny_run / "confusion.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["split=dev"], r"split: expected one of test, train, val, got 'dev'"),
        (["data=modelnet40"], r"data: overrides of a saved config take values, not groups; .*data\.num_t"),
        (["augment=rotate"], r"augment: overrides of a saved config take values, not groups"),
        (["data.rot=x"], r"data\.rot: unknown key; expected one of .*num_points"),
        (["train.eval_batch_size=x"], r"train\.eval_batch_size: expected a whole number, got 'x'"),
        (["whole"], r"argument 'whole': expected key=value"),
        (["data.seed=[1"], r"data\.seed=\[1"),
        (["model.encoder.depth=3"], r"weights of another architecture"),
        (["votes=ten"], r"votes: expected a whole number, got 'ten'"),
        (["votes=10", "corruption=jitter"], r"votes: are for clean clouds; leave out corruption"),
    ],
)
def test_mistakes_of_an_evaluation(here, tiny_run, arguments, said):
    status, out, err = here("evaluate.py", tiny_run / "last.pt", *arguments)
    assert_one_line(status, err, said)
    assert out == ""


def test_evaluation_of_no_checkpoint(here, tmp_path):
    status, _, err = here("evaluate.py", tmp_path / "no.pt")
    assert_one_line(status, err, r"no\.pt: no such checkpoint; train one with 'python scripts/train_cls\.py")
    (tmp_path / "text.pt").write_text("hello")
    assert_one_line(*here("evaluate.py", tmp_path / "text.pt")[::2], r"text\.pt: not a bixt3d checkpoint")
    for arguments in (["--help"], [tmp_path / "no.pt", "split=val", "--help"]):
        status, out, err = here("evaluate.py", *arguments)
        assert (status, err) == (0, "")
        assert "CHECKPOINT" in out
