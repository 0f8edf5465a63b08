"""How a script takes its command line: what is the config, what are overrides, what is left behind."""

import shutil
import signal
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from places import ROOT

from bixt3d.config import compose, launch, override

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

    def launched(*arguments, then=None, config_root=CFGS):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py"), *arguments])
        launched.given = given = []

        def main(config):
            given.append(config)
            if then is not None:
                then(config)

        launch(main, config_root=config_root)
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


@pytest.mark.parametrize(
    "value",
    [
        "/tmp/Müller/daten",
        "日本",
        "/tmp/a (1)",
        "daten (1)",
        "a&b=c#d;e!f",
        "it's",
        "~x",
        "/tmp/[x] {y}",
        "/tmp/a (1,2)",
        "C:\\Users\\Müller\\daten (1)",
        "C:\\daten\\(1)\\",
        "\\\\server\\share\\x",
    ],
)
def test_a_path_is_taken_as_it_is_written(told, value):
    (found,) = told("../beside/two.yaml", f"name={value}", f"+names=[{value},b]")
    assert (found["name"], found["names"]) == (value, [value, "b"])
    assert compose("../beside/two.yaml", [f"name={value}"], config_root=CFGS)["name"] == value
    assert override({"name": "x"}, [f"name={value}"])["name"] == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("'a,b'", "a,b"),
        ("[1, null, 'x y', it's]", [1, None, "x y", "it's"]),
        ("[[ü,1],[2.5,true]]", [["ü", 1], [2.5, True]]),
        ("{a: 1}", {"a": 1}),
        ("ü${size}", "ü1"),
        ("1e-3", 0.001),
        ("", ""),
    ],
)
def test_what_hydra_reads_is_left_alone(told, value, expected):
    (found,) = told("../beside/two.yaml", f"name={value}")
    assert found["name"] == expected
    assert override({"name": "x", "size": 1}, [f"name={value}"])["name"] == expected


def test_what_cannot_be_read_is_said_in_a_sentence(told):
    with pytest.raises(
        SystemExit, match=r"^error: name=\[a: cannot be read; check its brackets .*\"name='\[a'\"\.$"
    ):
        told("../beside/two.yaml", "name=[a")
    with pytest.raises(ValueError, match=r"^argument name=a,b: "):
        override({"name": "x"}, ["name=a,b"])


def test_several_runs_may_have_names_in_any_language(told):
    found = told("../beside/two.yaml", "-m", "name=Müller,it's (1),x", "+n=[ü]")
    assert [config["name"] for config in found] == ["Müller", "it's (1)", "x"]
    assert found[0]["n"] == ["ü"]


def test_configs_may_lie_in_folders_of_any_name(told, tmp_path):
    strange = tmp_path / "lr=0.1, Müller's [x]"
    shutil.copytree(tmp_path / "beside", strange)
    shutil.copytree(CFGS / "data", tmp_path / "Größe, =" / "data")
    for several in ([], ["-m"]):
        (found,) = told(f"{strange}/two.yaml", "+data=shapes", *several, config_root=tmp_path / "Größe, =")
        assert found["data"]["_target_"] == "bixt3d.datasets.Shapes"
    (found,) = told("../lr=0.1, Müller's [x]/two.yaml", "size=3")
    assert found == {"size": 3, "name": "n3"}


def test_a_combination_that_fails_does_not_end_the_others(told, capsys):
    def fail(config):
        if config["size"] == 2:
            raise ValueError("size: expected an odd number.")
        if config["size"] == 4:
            raise KeyError("a bug of one's own")

    with pytest.raises(SystemExit) as ended:
        told("../beside/two.yaml", "-m", "size=1,2,3,4,5", "name=x", then=fail)
    assert [config["size"] for config in told.given] == [1, 2, 3, 4, 5]
    assert ended.value.code.splitlines() == [
        "error: 2 of 5 combinations failed:",
        "  size=2: size: expected an odd number.",
        '  size=4: "a bug of one\'s own"',
    ]
    said = capsys.readouterr().err
    assert "error: size: expected an odd number.\n" in said  # when it happens, not at the end alone
    assert "KeyError" in said


@pytest.mark.parametrize("status", [0, 1, 128, 128 + signal.SIGTERM])
def test_a_stop_ends_all_combinations(told, status):
    # and so does the status of processes on several devices, which have run all of them
    with pytest.raises(SystemExit) as ended:
        told("../beside/two.yaml", "-m", "size=1,2", then=lambda config: sys.exit(status))
    assert (ended.value.code, len(told.given)) == (status, 1)
