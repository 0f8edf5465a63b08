"""What is printed and written of results: which figures, on which split, chosen by which."""

import csv
import json

import pytest

from bixt3d.training.report import print_result, write_report

FACTS = {"name": "mine", "split": "test", "clouds": 2468, "points": "the first 1,024 points"}


class Figures:
    """A result of one table and one picture."""

    picture = "mine.png"

    def __init__(self, accuracy):
        self.accuracy = accuracy

    def summary(self):
        return {"OA": self.accuracy, "mAcc": self.accuracy - 2}

    def tables(self):
        return {"mine.csv": [["figure", "value"], ["OA", self.accuracy]]}

    def draw(self, path, title):
        path.write_text(title)


def test_every_result_is_printed_with_what_it_was_measured_on(capsys):
    results = {"last": Figures(90.126), "selected": Figures(91.5)}
    print_result(results, {**FACTS, "select_on": "val", "selected_epoch": 7})
    assert capsys.readouterr().out.splitlines() == [
        "mine on test (2,468 clouds, the first 1,024 points):",
        "  last       OA 90.13 %, mAcc 88.13 %",
        "  selected   OA 91.50 %, mAcc 89.50 % (epoch 7, selected on val)",
    ]
    print_result({"checkpoint": Figures(90)}, {**FACTS, "drop_strays": True})
    assert "(2,468 clouds, the first 1,024 points, strays dropped):" in capsys.readouterr().out


@pytest.mark.parametrize(("select_on", "warned"), [("test", True), ("val", False)])
def test_a_choice_by_the_split_that_is_measured_is_warned_of(capsys, select_on, warned):
    results = {"last": Figures(90), "selected": Figures(91)}
    print_result(results, {**FACTS, "select_on": select_on, "selected_epoch": 7})
    lines = capsys.readouterr().out.splitlines()
    assert ["WARNING: selected on the split it is measured on" in line for line in lines] == [
        False,
        False,
        warned,
    ]


def test_tables_and_picture_are_of_the_last_result(tmp_path):
    results = {"last": Figures(90.0), "selected": Figures(91.0)}
    written = write_report(tmp_path, results, FACTS)
    assert written == [tmp_path / "mine.csv", tmp_path / "mine.png"]
    assert list(csv.reader((tmp_path / "mine.csv").open())) == [["figure", "value"], ["OA", "91.0"]]
    assert (tmp_path / "mine.png").read_text() == "mine, test, selected: OA 91.00 %, mAcc 89.00 %"
    content = json.loads((tmp_path / "results.json").read_text())
    figures = {"last": {"OA": 90.0, "mAcc": 88.0}, "selected": {"OA": 91.0, "mAcc": 89.0}}
    assert content == {**FACTS, "results": figures}


def test_a_figure_that_is_no_number_does_not_cost_the_report(tmp_path):
    write_report(tmp_path, {"last": Figures(float("nan"))}, FACTS)
    assert "NaN" in (tmp_path / "results.json").read_text()
