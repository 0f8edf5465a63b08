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


# Two bins of the fifteen hold these: (0.6, 0.667) with one of two right, and (0.867, 0.933) with two of two right.
SURE = [0.62, 0.64, 0.9, 0.88]
RIGHT = [True, False, True, True]


def of_certainty():
    """Four clouds of four classes; the prediction has the probability above, the next class half of the rest."""
    rows, labels = [], []
    for i, (sure, right) in enumerate(zip(SURE, RIGHT, strict=True)):
        row = torch.full((4,), (1 - sure) / 4)
        row[i], row[(i + 1) % 4] = sure, (1 - sure) / 2
        rows.append(row.log() + i)  # logits are known up to a constant
        labels.append(i if right else (i + 2) % 4)
    return torch.stack(rows), torch.tensor(labels)


@pytest.mark.parametrize("cuts", [[4], [1, 3]])
def test_how_sure_a_model_was_by_hand(cuts):
    scores, labels = of_certainty()
    meter = ClassificationMeter(CLASSES)
    for some, truth in zip(scores.split(cuts), labels.split(cuts), strict=True):
        meter.update(some, truth)
    result = meter.compute()
    expected = 2 / 4 * abs(0.63 - 1 / 2) + 2 / 4 * abs(0.89 - 1)
    assert result.details() == {
        "probability where right": pytest.approx(100 * (0.62 + 0.9 + 0.88) / 3, rel=1e-6),
        "probability where wrong": pytest.approx(64, rel=1e-6),
        "calibration error": pytest.approx(100 * expected, rel=1e-6),
    }
    heading, *rows = result.per_cloud(["one", "two", "three", "four"])["predictions.csv"]
    assert heading == ["cloud", "truth", "predicted", "probability", "second", "probability_second"]
    assert rows == [
        ["one", "cone", "cone", "0.620000", "cube", "0.190000"],
        ["two", "slab", "cube", "0.640000", "ring", "0.180000"],
        ["three", "ring", "ring", "0.900000", "slab", "0.050000"],
        ["four", "slab", "slab", "0.880000", "cone", "0.060000"],
    ]


def test_a_mean_over_no_cloud_is_left_out_and_one_class_has_no_second():
    meter = ClassificationMeter(("cow",))
    meter.update(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    result = meter.compute()
    assert result.details() == {"probability where right": 100, "calibration error": 0}
    rows = [[name, "cow", "cow", "1.000000", "", ""] for name in "xy"]
    assert result.per_cloud("xy")["predictions.csv"][1:] == rows
    assert ClassificationResult(torch.eye(4), CLASSES).details() == {}


def test_a_meter_of_ones_own_that_keeps_no_clouds_costs_no_report():
    class Counting(ClassificationMeter):
        def update(self, logits, labels):
            self.confusion.update(logits.argmax(dim=1), labels)

    scores, labels = of_certainty()
    meter = Counting(CLASSES)
    meter.update(scores, labels)
    result = meter.compute()
    assert result.summary()["OA"] == 75
    assert (result.details(), result.per_cloud("abcd")) == ({}, {})


def test_pieces_of_clouds_are_no_rows_of_them():
    meter = ClassificationMeter(CLASSES)
    meter.update(*of_certainty())
    assert meter.compute().per_cloud(["one", "two"]) == {}


def test_logits_that_are_no_numbers_cost_no_report():
    meter = ClassificationMeter(CLASSES)
    meter.update(torch.full((3, 4), torch.nan), torch.tensor([0, 1, 2]))
    assert meter.compute().details()["probability where wrong"] == 0


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
    facts = {"name": "n", "split": "test", "clouds": 7}
    write_report(tmp_path, {"last": worse, "selected": result}, facts, "abcdefg")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["details"] == {"last": {}, "selected": result.details()}
    with (tmp_path / "predictions.csv").open(newline="") as file:
        clouds = list(csv.DictReader(file))
    assert "".join(row["cloud"] for row in clouds) == "abcdefg"
    assert [CLASSES.index(row["truth"]) for row in clouds] == TRUTH
    assert [CLASSES.index(row["predicted"]) for row in clouds] == PREDICTED
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
