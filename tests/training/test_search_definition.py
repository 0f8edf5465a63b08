"""The definition of a search: what it may say, and that what is wrong with it is found before the first run."""

import pytest
import yaml
from places import ROOT

from bixt3d.training.search import check_search, read_search

CFGS = ROOT / "cfgs"
TINY = str(ROOT / "tests" / "tiny.yaml")


def test_the_base_may_be_shipped_or_lie_beside_the_search(written, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert read_search(written(base="quickstart"), config_root=CFGS).base == CFGS / "quickstart.yaml"
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert read_search(written(base="mine.yaml"), config_root=CFGS).base == tmp_path / "mine.yaml"


def test_overrides_of_the_command_line_come_last_and_groups_may_be_taken_out(written):
    path = written(common=["train.epochs=1", "~augment"])
    search = read_search(path, ["train.epochs=2"], config_root=CFGS)
    assert search.common == ("train.epochs=1", "~augment", "train.epochs=2")
    with pytest.raises(ValueError, match=r"^arguments: train\.seed=1: the search itself sets"):
        read_search(path, ["train.seed=1"], config_root=CFGS)


MISTAKES = {
    "base": (
        {"base": "modelnet41"},
        ValueError,
        r"base: no config 'modelnet41'; expected one of .*quickstart",
    ),
    "no base": ({"base": None}, ValueError, r"expected the keys base, common, seeds, settings .*, got seeds"),
    "key": ({"seed": 3}, ValueError, r"expected the keys base, .*, got base, seed, seeds, settings"),
    "seeds": ({"seeds": 3}, ValueError, r"seeds: expected a list of different whole numbers, got 3"),
    "no seeds": ({"seeds": []}, ValueError, r"seeds: expected a list of different whole numbers, got \[\]"),
    "true": ({"seeds": [True]}, ValueError, r"seeds: expected .* whole numbers, got \[True\]"),
    "same seeds": ({"seeds": [1, 1]}, ValueError, r"seeds: expected .* different .*, got \[1, 1\]"),
    "no settings": ({"settings": []}, ValueError, r"settings: expected names with lists .*, got \[\]"),
    "text": ({"settings": {"a": "x=1"}}, TypeError, r"settings: a: expected a list of overrides .* 'x=1'"),
    "no override": ({"common": ["x"]}, ValueError, r"common: expected overrides such as .*, got 'x'"),
    "seed": (
        {"settings": {"a": ["train.seed=1"]}},
        ValueError,
        r"a: train\.seed=1: the search itself sets run_dir, .*; leave it out",
    ),
    "added seed": (
        {"settings": {"a": ["+train.seed=1"]}},
        ValueError,
        r"a: \+train\.seed=1: the search itself",
    ),
    "test figures": (
        {"common": ["train.measure_test=true"]},
        ValueError,
        r"common: train\.measure_test=true: the",
    ),
    "continued": ({"common": ["train.resume=x"]}, ValueError, r"common: train\.resume=x: the search itself"),
    "nameless": ({"settings": {"!?": []}}, ValueError, r"settings: '!\?' give no distinct folder names"),
    "names": (
        {"settings": {"lr 1": [], "lr_1": []}},
        ValueError,
        r"settings: 'lr 1' and 'lr_1' give no distinct folder names",
    ),
    "unknown key": (
        {"settings": {"a": [], "b": ["train.epocs=3"]}},
        ValueError,
        r"^setting 'b': train\.epocs: unknown key; expected one of .*epochs",
    ),
    "unknown option": (
        {"settings": {"a": ["augment=spin"]}},
        ValueError,
        r"^setting 'a': .*augment/spin.*rotate",
    ),
    "type": (
        {"settings": {"a": ["train.epochs=x"]}},
        TypeError,
        r"^setting 'a': train\.epochs: expected a whole number",
    ),
    "model key": (
        {"settings": {"a": ["+model.encoder.depht=3"]}},
        ValueError,
        r"^setting 'a': model\.encoder: unknown key 'depht'",
    ),
    "optimiser key": (
        {"settings": {"a": ["+optim.optimizer.ls=3"]}},
        ValueError,
        r"^setting 'a': optim\.optimizer: unknown key 'ls'",
    ),
    "task key": (
        {"settings": {"a": ["+task.smooth=3"]}},
        ValueError,
        r"^setting 'a': task: unknown key 'smooth'",
    ),
    "augmentation key": (
        {"settings": {"a": ["+augment.std=3"]}},
        ValueError,
        r"^setting 'a': augment: unknown key 'std'",
    ),
    "test split": (
        {"common": ["train.select_on=test"]},
        ValueError,
        r"^setting 'plain': train\.select_on: expected val",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_before_the_first_run(written, tmp_path, name):
    keys, error, said = MISTAKES[name]
    with pytest.raises(error, match=said):
        check_search(read_search(written(**keys), config_root=CFGS), tmp_path, config_root=CFGS)


def test_a_search_that_is_not_there_and_one_that_is_no_yaml(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml: no such search; expected the path"):
        read_search(tmp_path / "nothing.yaml", config_root=CFGS)
    (tmp_path / "bad.yaml").write_text("base: [1\n")
    with pytest.raises(ValueError, match=r"bad\.yaml: "):
        read_search(tmp_path / "bad.yaml", config_root=CFGS)


def test_a_folder_with_a_run_of_other_settings_is_refused(written, tmp_path, compose):
    out = tmp_path / "out"
    search = read_search(written(), config_root=CFGS)
    run = search.runs(out)[1]
    run.folder.mkdir(parents=True)
    saved = compose(TINY, *run.overrides, "run_dir=elsewhere")
    (run.folder / "config.yaml").write_text(yaml.safe_dump(saved))
    check_search(search, out, config_root=CFGS)
    changed = read_search(written(common=["train.epochs=5"]), config_root=CFGS)
    with pytest.raises(ValueError, match=r"'fast, bold': .* train\.epochs=4, the search now says 5; choose"):
        check_search(changed, out, config_root=CFGS)


def test_a_run_may_be_continued_where_the_data_lies_elsewhere(written, tmp_path, compose):
    path = written(base="modelnet40_cpu", settings={"plain": []}, seeds=[0])
    run = read_search(path, config_root=CFGS).runs(tmp_path / "out")[0]
    run.folder.mkdir(parents=True)
    config = compose(CFGS / "modelnet40_cpu.yaml", *run.overrides, "train.resume=x", "data.root=before")
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    moved = read_search(path, ["data.root=now"], config_root=CFGS)
    check_search(moved, tmp_path / "out", config_root=CFGS)
    config["data"]["num_points"] = 7
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(
        ValueError, match=r"'plain': .* holds a run with data\.num_points=7, the search now says"
    ):
        check_search(moved, tmp_path / "out", config_root=CFGS)
