"""OA and mAcc against counting by hand, whatever the batches."""

import csv
import json

import numpy as np
import pytest
import torch

from bixt3d.metrics.classification import ClassificationMeter, ClassificationResult
from bixt3d.training.report import print_result, write_report

CLASSES = ("cone", "cube", "ring", "slab")
# "slab" is never the truth, though it is predicted once.
TRUTH = [0, 0, 0, 0, 1, 1, 2]
PREDICTED = [0, 0, 0, 1, 1, 3, 2]
OA = 5 / 7
MACC = (3 / 4 + 1 / 2 + 1 / 1) / 3


def logits(predicted, classes=4):
    """Logits whose largest is at the prediction, by a different margin each time."""
    out = torch.zeros(len(predicted), classes)
    out[torch.arange(len(predicted)), torch.tensor(predicted)] = torch.linspace(0.1, 9, len(predicted))
    return out


@pytest.fixture
def result():
    meter = ClassificationMeter(CLASSES)
    meter.update(logits(PREDICTED), torch.tensor(TRUTH))
    return meter.compute()


@pytest.mark.parametrize("cuts", [[], [4], [6], [1, 2, 3, 4, 5, 6]])
def test_by_hand_with_an_absent_class_and_uneven_batches(cuts):
    meter = ClassificationMeter(CLASSES)
    for start, end in zip([0, *cuts], [*cuts, 7], strict=True):
        meter.update(logits(PREDICTED[start:end]), torch.tensor(TRUTH[start:end]))
    result = meter.compute()
    assert result.confusion.tolist() == [[3, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert result.overall_accuracy == OA
    assert result.mean_class_accuracy == pytest.approx(MACC, rel=1e-15)
    assert result.summary() == {"OA": 100 * OA, "mAcc": pytest.approx(100 * MACC, rel=1e-15)}
    assert result.recalls[:3].tolist() == [0.75, 0.5, 1.0]
    assert torch.isnan(result.recalls[3])


def test_it_is_not_the_average_of_batch_averages():
    batches = [(0.75, PREDICTED[:4]), (2 / 3, PREDICTED[4:])]
    assert np.mean([share for share, _ in batches]) != pytest.approx(OA, abs=1e-3)


def test_random_predictions_against_numpy():
    random = np.random.default_rng(0)
    truth, scores = random.integers(0, 7, 501), random.normal(size=(501, 7)).astype(np.float32)
    truth[truth == 5] = 4
    meter = ClassificationMeter(tuple("abcdefg"))
    for rows in np.array_split(np.arange(501), 13):
        meter.update(torch.from_numpy(scores[rows]), torch.from_numpy(truth[rows]))
    right = scores.argmax(1) == truth
    recalls = [right[truth == c].mean() for c in np.unique(truth)]
    assert meter.compute().overall_accuracy == right.mean()
    assert meter.compute().mean_class_accuracy == pytest.approx(np.mean(recalls), rel=1e-14)


def test_a_new_meter_starts_from_nothing(result):
    other = ClassificationMeter(CLASSES)
    other.update(logits([2]), torch.tensor([2]))
    assert other.compute().confusion.sum() == 1
    assert result.confusion.sum() == 7


def test_one_class_only():
    meter = ClassificationMeter(("cow",))
    meter.update(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    assert meter.compute().confusion.tolist() == [[3]]
    assert meter.compute().summary() == {"OA": 100.0, "mAcc": 100.0}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_counted_is_an_error():
    with pytest.raises(ValueError, match="at least one cloud"):
        ClassificationMeter(CLASSES).compute()


def test_report_files(result, tmp_path):
    worse = ClassificationResult(torch.ones(4, 4, dtype=torch.int64), CLASSES)
    write_report(tmp_path, {"last": worse, "selected": result}, {"name": "n", "split": "test", "clouds": 7})
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["results"] == {"last": worse.summary(), "selected": result.summary()}
    assert (written["split"], written["clouds"]) == ("test", 7)
    with (tmp_path / "confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == list(CLASSES)
    assert [[int(n) for n in row[1:]] for row in rows[1:]] == result.confusion.tolist()
    with (tmp_path / "per_class.csv").open(newline="") as file:
        table = {row["class"]: row for row in csv.DictReader(file)}
    assert (table["cone"]["clouds"], table["cone"]["correct"], table["cone"]["recall_percent"]) == (
        "4",
        "3",
        "75.00",
    )
    assert table["cone"]["most_confused_with"] == "cube (1)"
    assert table["ring"]["most_confused_with"] == ""
    assert table["slab"]["recall_percent"] == "", "no cloud, no recall"
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("select_on", "warned"), [("val", False), ("test", True)])
def test_selecting_on_the_split_that_is_measured_is_said(result, capsys, select_on, warned):
    facts = {
        "name": "n",
        "split": "test",
        "clouds": 7,
        "points": "all points",
        "selected_epoch": 3,
        "select_on": select_on,
    }
    print_result({"last": result, "selected": result}, facts)
    out = capsys.readouterr().out
    assert out.count("OA 71.43 %, mAcc 75.00 %") == 2
    assert f"(epoch 3, selected on {select_on})" in out
    assert ("WARNING" in out) is warned


def test_result_names_belong_to_rows():
    confusion = torch.tensor([[2, 0], [1, 1]])
    assert ClassificationResult(confusion, ("a", "b")).recalls.tolist() == [1.0, 0.5]
