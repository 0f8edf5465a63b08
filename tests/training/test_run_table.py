"""The table over runs holds what their folders say, and for several seeds what a hand comes to."""

import csv
import json

import pytest

from bixt3d.config import to_yaml
from bixt3d.training.run_table import read_run, table, write_table

MLP = {"_target_": "mine.models.MLP", "width": 8}
NET = {"_target_": "mine.models.Net", "depth": 2}


@pytest.fixture
def run(tmp_path):
    """Write a run folder and read it again."""

    def made(name, seed, oa=None, *, model=MLP, lr=0.1, steps=None, **said):
        folder = tmp_path / name
        folder.mkdir()
        train = {"seed": seed, "select_on": "val", "log_every": seed + 1, "max_steps": steps}
        config = {"name": name, "run_dir": str(folder), "model": model, "optim": {"lr": lr}, "train": train}
        (folder / "config.yaml").write_text(to_yaml(config))
        (folder / "train.csv").write_text("step,loss,samples_per_second\n1,2,10\n2,2,30\n3,2,20\n")
        (folder / "selection.csv").write_text("step,epoch,OA,minutes\n1,1,50,0.5\n3,2,60,1.5\n")
        if oa is not None:
            results = {"last": {"OA": oa}, "selected": {"OA": oa + 1}}
            content = {"split": "test", **said, "results": results}
            (folder / "results.json").write_text(json.dumps(content))
        return read_run(name, folder)

    return made


def test_a_run_has_its_settings_costs_and_figures(run):
    costs = {
        "parameters": 2_500_000,
        "operations": 11_540_000_000,
        "minutes": 12.34,
        "peak_memory": 3 * 2**29,
    }
    rows = table([run("a", 0, 90.125, **costs, samples_per_second=123.4), run("b", 1, lr=0.2)])
    assert ", ".join(rows[0][:5]) == "run, seed, optim.lr, parameters, M, GFLOP a cloud"
    assert rows[0][5:] == [
        *("minutes", "samples/s", "peak memory, GiB", "test OA, last", "test OA, selected", "val OA, last")
    ]
    assert rows[1:] == [
        ["a", "0", "0.1", "2.50", "11.54", "12.3", "123", "1.50", "90.12", "91.12", ""],
        # not measured: what its curves end with
        ["b", "1", "0.2", "", "", "1.5", "20", "", "", "", "60.00"],
    ]


def test_seeds_of_a_setting_have_a_mean_and_settings_that_share_seeds_a_difference(run):
    runs = [run(f"a{seed}", seed, oa, parameters=1e6) for seed, oa in ((0, 90), (1, 92), (2, 94))]
    runs += [run(f"b{seed}", seed, oa, lr=0.2, parameters=1e6) for seed, oa in ((1, 93), (2, 97), (5, 80))]
    runs += [run("c", 0, 70, steps=9, parameters=1e6), run("again", 0, 1, parameters=1e6)]
    head, *rows = table(runs)
    rows = [dict(zip(head, row, strict=True)) for row in rows[len(runs) :]]
    assert [(row["run"], row["seed"], row["optim.lr"], row["train.max_steps"]) for row in rows] == [
        ("mean of 3 seeds", "0, 1, 2", "0.1", ""),
        ("mean of 3 seeds", "1, 2, 5", "0.2", ""),
        ("difference to a0 over 2 seeds", "1, 2", "0.2", ""),
    ]
    # 90, 92, 94; 93, 97, 80: squares of 3, 7 and -10 are 158, by two 79; 93 - 92 and 97 - 94
    assert [row["test OA, last"] for row in rows] == ["92.00 ± 2.00", "90.00 ± 8.89", "+2.00 ± 1.41"]
    assert [row["parameters, M"] for row in rows] == ["1.00", "1.00", ""]


def test_models_of_two_kinds_are_named_and_compared_within_a_kind(run):
    runs = [run("a", 0), run("b", 0, model={**MLP, "width": 9}), run("c", 0, model=NET)]
    head, *rows = table(runs)
    assert head[2:4] == ["model", "model.width"]
    assert [row[2:4] for row in rows] == [["MLP", "8"], ["MLP", "9"], ["Net", ""]]
    lists = [
        run(name, 0, model={"_target_": "m.M", "parts": parts})
        for name, parts in (("d", [MLP, NET]), ("e", [MLP]), ("f", [MLP, MLP]))
    ]
    assert [row[2] for row in table(lists)] == ["model.parts", "MLP, Net", "MLP", "MLP, MLP"]


def test_the_script_writes_either_kind_of_table_and_no_picture(call, run, tmp_path):
    run("lr=0.1", 0, 90)
    run("b", 1, 80)
    for suffix in ("csv", "md"):
        out = tmp_path / "new" / f"t.{suffix}"
        status, said, err = call(
            "plot_runs.py", tmp_path / "lr=0.1", f"B=|={tmp_path}/b", "--table", out, cwd=tmp_path
        )
        assert (status, said) == (0, f"saved {out}\n"), err
    with (tmp_path / "new" / "t.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["lr=0.1", "B=|", "mean of 2 seeds"]
    lines = (tmp_path / "new" / "t.md").read_text().splitlines()
    assert lines[1] == "|---|---|---|---|---|---|"
    assert lines[3] == "| B=\\| | 1 | 1.5 | 20 | 80.00 | 81.00 |"
    assert not list(tmp_path.glob("*.png"))


def test_what_cannot_be_read_or_written_is_said(run, tmp_path):
    with pytest.raises(ValueError, match=r"t\.txt: expected a table whose name ends in \.csv or \.md"):
        write_table([run("a", 0)], tmp_path / "t.txt")
    with pytest.raises(FileNotFoundError, match=r"no config\.yaml here; expected the folder of a run"):
        read_run("b", tmp_path)
    (tmp_path / "a" / "results.json").write_text('{"split":')
    with pytest.raises(ValueError, match=r"results\.json: cannot be read, it may be damaged: "):
        read_run("a", tmp_path / "a")
