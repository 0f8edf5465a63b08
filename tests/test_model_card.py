"""What a model card takes from a run folder, and what it says of data, selection and limits."""

import json

import pytest

from bixt3d.model_card import gather_facts, public_command, public_config, write_card

BARE = {"weights": "last", "epoch": 3, "steps": 1200, "selection": {}}
PARTS = ["mug/body", "mug/handle"]


def card(config, classes=("one", "two"), parts=(), **facts):
    return write_card("a", config, classes, parts, {**BARE, **facts}, dtype="float32", size=1)


@pytest.fixture
def run(tmp_path):
    """A run of three stretches, the first on a CPU and the others on a device, that was measured."""
    for name, commit, cuda in (
        ("", "first", []),
        ("_step9", "second", ["H200"]),
        ("_step10", "third", ["H200"]),
    ):
        stretch = {
            "command": f"python /home/x/bixt3d/scripts/train_cls.py cfgs/a.yaml run_dir=/tmp/{commit}",
            "git_commit": commit,
            "bixt3d": "1.0",
            "torch": f"2.{len(commit)}",
            "processor": "some CPU",
            "cuda": cuda,
        }
        (tmp_path / f"environment{name}.json").write_text(json.dumps(stretch))
    results = {
        "split": "test",
        "clouds": 1234,
        "select_on": "val",
        "seed": 7,
        "minutes": 61.5,
        "results": {"last": {"OA": 11.0}, "selected": {"OA": 22.0}},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def test_the_facts_are_those_of_the_first_stretch_and_of_all_devices(run):
    last = {"progress": {"epoch": 5, "step": 40}}
    for place in (run, run / "last.pt"):
        facts = gather_facts(place, last)
        assert facts["command"] == "python scripts/train_cls.py cfgs/a.yaml"
        assert (facts["git_commit"], facts["torch"], facts["bixt3d"]) == ("first", "2.5", "1.0")
        assert facts["devices"] == ["H200", "some CPU"]
        assert (facts["weights"], facts["epoch"], facts["steps"]) == ("last", 5, 40)
        assert (facts["results"], facts["seed"], facts["minutes"]) == ({"OA": 11.0}, 7, 61.5)
    selected = gather_facts(run / "best.pt", {**last, "selection": {"OA": 33.0}})
    assert (selected["weights"], selected["results"]) == ("selected", {"OA": 22.0})


def test_a_file_that_is_no_json_is_named(run):
    (run / "results.json").write_text("{")
    with pytest.raises(RuntimeError, match=r"results\.json: expected JSON .*; write the file again"):
        gather_facts(run / "last.pt", {})


def test_a_card_tells_how_the_weights_came_about(tiny, run):
    facts = gather_facts(run / "best.pt", {"progress": {"epoch": 5, "step": 4000}, "selection": {"OA": 33.0}})
    said = card(tiny(), **facts)
    assert "Commit first, torch 2.5.\nDevice: H200; some CPU." in said
    assert "Seed 7, 5 epochs, 4,000 steps. The whole run took 61.5 minutes, selection included." in said
    assert "best on the split `val` (epoch 5: OA 33.00)" in said
    assert "| measured on | OA |\n|---|---|\n| test (1,234 clouds) | 22.00 |" in said
    assert "figures are too high" not in said
    on_test = card(tiny(), **{**facts, "select_on": "test"})
    assert "selected on the split they are measured on, so the figures are too high" in on_test


def test_a_card_falls_back_on_the_config(tiny):
    said = card(tiny("train.seed=5"))
    assert "Seed 5, 3 epochs, 1,200 steps.\n" in said
    assert "A `BiXTClassifier` that classifies shapes: 2 classes, 32 points a cloud. 1 bytes" in said
    assert "segments parts: 1 classes, 2 parts" in card(tiny(), ["mug"], PARTS)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("modelnet40", "ModelNet40, whose terms allow academic research alone"),
        ("shapenetpart", "ShapeNet, whose terms allow non-commercial research"),
        ("scanobjectnn", "ScanObjectNN, which its authors give on request"),
        ("shapes", "the licence of the toolkit (MIT) applies"),
        ("folder", "ask them what the data allows"),
    ],
)
def test_a_card_names_the_licence_of_the_data(tiny, data, said):
    licence = card(tiny(f"data={data}")).partition("## Licence")[2]
    assert said in licence


def test_a_card_says_what_was_held_out_and_names_the_data_without_its_place(tiny):
    said = card(public_config(tiny("data=modelnet40", "data.root=/mnt/disk/mine")), ["bed", "cup"])
    assert "ModelNet40, files of `mine`: bed, cup.\n10 % of the train split was held out" in said
    assert "evaluate.py a.safetensors data.root=DIR" in said
    assert "held out" not in card(tiny())


def test_a_card_says_whether_objects_may_stand_otherwise(tiny):
    assert "No free rotation in training" in card(tiny())
    turned = tiny()
    turned["augment"] = {"_target_": "bixt3d.datasets.transforms.RandomRotation"}
    assert "No free rotation" not in card(turned)


@pytest.mark.parametrize("dropped", [False, True])
def test_robustness_is_that_of_the_file(tiny, run, dropped):
    measured = {
        "clean": {"OA": 90.0, "mAcc": 80.0},
        "mean_over_severities": {"jitter": {"OA": 45.0, "OA relative": 50.0}},
        **({"drop_strays": True} if dropped else {}),
    }
    (run / "robustness.json").write_text(json.dumps(measured))
    facts = gather_facts(run / "last.pt", {"progress": {"epoch": 1, "step": 2}}, run / "robustness.json")
    said = card(tiny(), **facts)
    assert "| none | 90.00 | |\n| jitter | 45.00 | 50.0 % |" in said
    assert ("OA on corrupted test clouds, stray points dropped first, mean" in said) == dropped


def test_no_path_of_the_machine_is_left_in_a_config(tiny):
    config = tiny("data=modelnet40", "data.root=/mnt/x/mn40", "data.cache=/tmp/y/cached", "run_dir=/tmp/z")
    config["train"] |= {"accelerator": "cuda", "devices": 4, "resume": "/tmp/z", "seed": 3}
    public = public_config(config)
    assert (public["data"]["root"], public["data"]["cache"]) == ("data/mn40", "data/cached")
    assert (public["run_dir"], public["train"]["resume"]) == (None, None)
    assert (public["train"]["accelerator"], public["train"]["devices"]) == ("auto", 1)
    assert public["train"]["seed"] == 3
    assert config["data"]["root"] == "/mnt/x/mn40"


def test_no_path_of_the_machine_is_left_in_a_command():
    given = (
        "python -u /home/x/scripts/train_cls.py /home/x/cfgs/a.yaml data.root=/mnt/d +data.cache=/mnt/c "
        "+run_dir=/tmp/q out=/tmp/o train.max_minutes=5 train.resume=/tmp/q 'x.y=[1, 2]'"
    )
    assert public_command(given) == (
        "python -u scripts/train_cls.py cfgs/a.yaml data.root=DIR data.cache=DIR 'x.y=[1, 2]'"
    )
    for origin in ("/home/x/runs/best.pt", "runs/best.pt", "best.pt"):
        assert public_command(f"a.py train.start_from={origin}") == "a.py train.start_from=best.pt"
