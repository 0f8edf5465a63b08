"""What a measurement of a checkpoint refuses, and where its report goes."""

import csv
import json

import pytest
import torch

from bixt3d.checkpoint import check_labels
from bixt3d.evaluation.evaluate import evaluate_checkpoint

CPU = "train.accelerator=cpu"
pytestmark = pytest.mark.usefixtures("one_thread")


def test_data_of_other_classes_is_refused_even_if_they_are_as_many(tiny_run, tmp_path):
    content = torch.load(tiny_run / "best.pt", weights_only=True)
    with pytest.raises(
        ValueError, match=r"other classes \(11, number 12 is None\) than .* \(12, number 12 is 'table'\)"
    ):
        check_labels("a.pt", "classes", content["classes"][:-1], content["classes"])
    for classes in (content["classes"][::-1], content["classes"][1:]):
        torch.save({**content, "classes": classes}, tmp_path / "other.pt")
        said = (
            rf"other\.pt: was trained on other classes \({len(classes)}, number 1 is '{classes[0]}'\) than the "
            r"data set has \(12, number 1 is 'airplane'\); give the data it was trained on"
        )
        with pytest.raises(ValueError, match=said):
            evaluate_checkpoint(tmp_path / "other.pt", [CPU])


def test_a_report_names_the_split_and_lies_where_it_is_asked_for(tiny_run, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    result = evaluate_checkpoint(tiny_run / "best.pt", [CPU], split="val", out=out)
    said = capsys.readouterr().out
    assert said.startswith("tiny on val (24 clouds, the first 32 points):")
    assert f"report: {out}" in said
    written = json.loads((out / "results.json").read_text())
    assert written == {
        "name": "tiny",
        "split": "val",
        "clouds": 24,
        "points": "the first 32 points",
        "checkpoint": str(tiny_run / "best.pt"),
        "results": {"checkpoint": result.summary()},
        "details": {"checkpoint": result.details()},
    }
    assert f"calibration error {result.details()['calibration error']:.2f} %" in said
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["cloud"] for row in rows}) == 24
    right = sum(row["truth"] == row["predicted"] for row in rows)
    assert 100 * right / 24 == pytest.approx(result.summary()["OA"])
    assert int(result.confusion.sum()) == 24


def test_an_override_that_changes_what_the_weights_compute_is_said(tiny_run, capsys):
    path = tiny_run / "best.pt"
    evaluate_checkpoint(path, [CPU, "model.encoder.chunk=7", "model.encoder.drop_path=0"])
    assert "note:" not in capsys.readouterr().out
    evaluate_checkpoint(path, [CPU, "model.encoder.chunk=7", "model.tokenizer.scale=3"])
    assert capsys.readouterr().out.splitlines()[0] == (
        f"note: {path} was trained with other settings of the model, so its weights compute something else here: "
        "model.tokenizer.scale was 8.0, is 3"
    )
