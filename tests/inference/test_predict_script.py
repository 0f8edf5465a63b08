import csv
import io
import os
import runpy
import signal
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from toys import PARTS, Classifier, Segmenter, segmenter

from bixt3d.inference.predictor import Predictor

SCRIPT = ROOT / "scripts" / "predict.py"


class Interrupted(Segmenter):
    """Gets signals in its second forward pass."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.calls = numbers, 0

    def forward(self, points, category=None):
        self.calls += 1
        if self.calls == 2:
            for number in self.numbers:
                signal.raise_signal(number)
        return super().forward(points, category)


@pytest.mark.parametrize(
    ("numbers", "status", "done"),
    [([signal.SIGINT], 130, 8), ([signal.SIGTERM], 143, 8), ([signal.SIGINT, signal.SIGINT], 130, 4)],
)
def test_a_signal_leaves_a_summary_of_what_is_done(tmp_path, monkeypatch, capsys, numbers, status, done):
    import bixt3d.inference.loading

    monkeypatch.setattr("bixt3d.training.signals.ONE_PRESS", 0.0)
    for i in range(20):
        np.save(tmp_path / f"{i:02}.npy", np.random.default_rng(i).normal(size=(20, 3)))
    predictor = Predictor(
        Interrupted(numbers), classes=("cup", "hat"), parts=PARTS, num_points=32, batch_size=4
    )
    monkeypatch.setattr(bixt3d.inference.loading, "load", lambda path, **options: predictor)
    out = tmp_path / "out"
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main(["model.pt", str(tmp_path), "--out", str(out)]) == status
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert [Path(row["file"]).name for row in rows] == [f"{i:02}.npy" for i in range(done)]
    assert len(list(out.glob("*_parts.npz"))) == done
    assert capsys.readouterr().out == f"stopped; parts of {done} of 20 files: {out / 'predictions.csv'}\n"


def test_the_command_leaves_old_tables_alone_where_it_predicts_nothing(tmp_path, monkeypatch, capsys):
    import bixt3d.inference.loading

    monkeypatch.setattr(bixt3d.inference.loading, "load", lambda path, **options: segmenter())
    monkeypatch.chdir(tmp_path)
    Path("predictions").mkdir()
    Path("predictions", "predictions.csv").write_text("kept\n")
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main(["model.pt", "scanz"]) == 1
    out, err = capsys.readouterr()
    assert out == "parts of 0 of 1 files: no table was written to predictions\n"
    assert " ".join(err.split()) == "error: scanz: there is no such file or folder; check the path."
    assert Path("predictions", "predictions.csv").read_text() == "kept\n"
    with pytest.raises(SystemExit, match="--category, --classifier: expected at most one of them"):
        main(["model.pt", "scanz", "--category", "cup", "--classifier", "c.pt"])


def test_options_of_the_command_reach_the_model(tmp_path, monkeypatch, capsys):
    import bixt3d.inference.loading

    given = {}
    monkeypatch.setattr(
        bixt3d.inference.loading, "load", lambda path, **options: given.update(options) or segmenter()
    )
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(20, 3)))
    main = runpy.run_path(str(SCRIPT))["main"]
    arguments = ["model.pt", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert (given["precision"], given["trust_code"]) == ("32-true", False)
    assert main([*arguments, "--precision", "bf16-mixed", "--trust-code"]) == 0
    assert (given["precision"], given["trust_code"]) == ("bf16-mixed", True)


@pytest.mark.parametrize("count", [2, 10, 11])
def test_answers_of_a_few_files_are_printed(tmp_path, monkeypatch, capsys, count):
    import bixt3d.inference.loading

    files = [tmp_path / f"{i:02}.npy" for i in range(count)]
    for i, file in enumerate(files):
        np.save(file, np.random.default_rng(i).normal(size=(100, 3)) * [5, 1, 1])
    files[0].write_bytes(b"")
    classifier = Predictor(Classifier(), classes=tuple("abcdefghi"), num_points=100)
    main = runpy.run_path(str(SCRIPT))["main"]
    out = tmp_path / "out"

    def lines(predictor, *options):
        monkeypatch.setattr(bixt3d.inference.loading, "load", lambda path, **others: predictor)
        assert main(["model.pt", *map(str, files), "--out", str(out), *options]) == 1
        *answers, summary = capsys.readouterr().out.splitlines()
        assert f" of {count - 1} of {count} files: " in summary
        assert len(answers) == (count - 1 if count <= 10 else 0), "none of the file that failed"
        return answers

    for file, line in zip(files[1:], lines(classifier), strict=False):
        name, probability = classifier(np.load(file)).top(1)[0]
        assert line == f"{name} {100 * probability:.1f} %  {file}"
    for category, place, names in (("cup", " of cup", ("body", "handle")), (None, "", PARTS)):
        options = () if category is None else ("--category", category)
        for file, line in zip(files[1:], lines(segmenter(), *options), strict=False):
            percent = np.bincount(segmenter()(np.load(file), category=category).labels, minlength=3)
            order = [i for i in np.argsort(-percent, kind="stable") if percent[i]]
            parts = ", ".join(f"{names[i]} {percent[i]} %" for i in order)
            assert line == f"parts{place}: {parts}  {file}"


def test_an_answer_about_a_file_whose_name_is_no_text(tmp_path, monkeypatch):
    import bixt3d.inference.loading

    monkeypatch.setattr(bixt3d.inference.loading, "load", lambda path, **options: segmenter())
    file = tmp_path / os.fsdecode(b"caf\xe9.npy")
    try:
        np.save(file, np.random.default_rng(0).normal(size=(20, 3)))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    strict = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr("sys.stdout", strict)
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main(["model.pt", str(file), "--out", str(tmp_path / "out")]) == 0
    assert rb"caf\udce9.npy" in strict.buffer.getvalue()


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_command(tmp_path, monkeypatch, capsys, world_size):
    import bixt3d.inference.loading

    for i in range(5):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).normal(size=(20, 3)))
    monkeypatch.setattr(bixt3d.inference.loading, "load", lambda path, **options: segmenter())
    main = runpy.run_path(str(SCRIPT))["main"]
    seen = []
    for rank in range(world_size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))
        assert main(["model.pt", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
        suffix = f"_rank{rank}" if world_size > 1 else ""
        seen += list(csv.DictReader((tmp_path / "out" / f"predictions{suffix}.csv").open()))
    assert sorted(Path(row["file"]).name for row in seen) == [f"{i}.npy" for i in range(5)]
    assert len(list((tmp_path / "out").glob("*_parts.ply"))) == 5
    (tmp_path / "0.npy").write_bytes(b"")
    monkeypatch.setenv("RANK", "0")
    assert main(["model.pt", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "0.npy: the file is empty" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit, match="error: category: unknown value 'cat', expected one of cup, hat"):
        main(["model.pt", str(tmp_path), "--category", "cat"])
