"""How a script takes its command line: what is the config, what are overrides, what is left behind."""

import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from places import ROOT

from bixt3d.config import compose, launch

CFGS = ROOT / "cfgs"


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Launch in an empty folder with a config of two lines; returns what the script's function is given."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "two.yaml").write_text("size: 1\nname: n${size}\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("BIXT3D_TRACEBACK", raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def launched(*arguments):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py"), *arguments])
        given = []
        launch(given.append, config_root=CFGS)
        return given

    yield launched
    GlobalHydra.instance().clear()


def test_the_config_may_stand_after_overrides_that_name_files(told):
    assert told("+file=other.yaml", "../beside/two.yaml", "size=3") == [
        {"size": 3, "name": "n3", "file": "other.yaml"}
    ]


def test_a_key_is_taken_out_and_a_group_is_found_in_the_configs_that_are_shipped(told):
    (found,) = told("../beside/two.yaml", "~size", "name=x", "+data=shapes")
    assert found["name"] == "x"
    assert "size" not in found
    assert found["data"]["_target_"] == "bixt3d.datasets.Shapes"


def test_nothing_is_left_behind_unless_it_is_asked_for(told, tmp_path):
    told("../beside/two.yaml")
    assert list((tmp_path / "here").iterdir()) == []
    told("../beside/two.yaml", "hydra.output_subdir=kept")
    assert {p.name for p in (tmp_path / "here" / "kept").iterdir()} >= {"config.yaml", "overrides.yaml"}


@pytest.mark.parametrize("option", ["-m", "--multirun"])
def test_several_runs_leave_nothing_behind_either(told, tmp_path, capsys, option):
    assert told("../beside/two.yaml", option, "size=1,2") == [
        {"size": 1, "name": "n1"},
        {"size": 2, "name": "n2"},
    ]
    assert list((tmp_path / "here").iterdir()) == []
    assert capsys.readouterr() == ("", "")
    told("../beside/two.yaml", option, "size=1,2", "hydra.sweep.dir=kept")
    assert (tmp_path / "here" / "kept" / "multirun.yaml").is_file()


def test_options_and_overrides_may_stand_in_any_order(told, capsys):
    assert told("-m", "~name", "../beside/two.yaml", "size=1,2") == [{"size": 1}, {"size": 2}]
    assert told("size=3", "--cfg=job", "../beside/two.yaml", "+x=4") == []
    assert capsys.readouterr().out == "size: 3\nname: n${size}\nx: 4\n"


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_usage_names_the_configs_and_no_group(told, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        told(*arguments)
    said = capsys.readouterr()
    usage = said.out if arguments else said.err
    assert ended.value.code == (0 if arguments else 2)
    names = usage.splitlines()[-1].partition(": ")[2].split(", ")
    assert names == sorted(path.stem for path in CFGS.iterdir() if path.suffix == ".yaml")


def test_a_config_of_another_name_is_not_taken_for_its_neighbour(told, tmp_path):
    (tmp_path / "here" / "two.yml").write_text("size: 5\n")
    (tmp_path / "here" / "two.yaml").write_text("size: 6\n")
    said = r"two\.yml: expected a config whose name ends in \.yaml; rename it"
    with pytest.raises(SystemExit, match=f"error: {said}"):
        told("two.yml")
    with pytest.raises(ValueError, match=said):
        compose("two.yml", config_root=CFGS)
