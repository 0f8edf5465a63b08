"""A checkpoint is data: building a model of it calls nothing that its config names but the toolkit and torch."""

import runpy
import sys

import pytest
from places import ROOT

from bixt3d.checkpoint import load_checkpoint, save_checkpoint
from bixt3d.config import from_yaml, to_yaml
from bixt3d.evaluation.evaluate import evaluate_checkpoint
from bixt3d.inference.export import export_checkpoint
from bixt3d.inference.loading import load
from bixt3d.signatures import foreign_name

NAMED = r"best\.pt: its config names '{}', which .* give trust_code=True \(in Python\).*--trust-code"
WAYS = {
    "load": lambda path, **trust: load(path, device="cpu", **trust),
    "evaluate": lambda path, **trust: evaluate_checkpoint(path, ["train.accelerator=cpu"], **trust),
    "export": lambda path, **trust: export_checkpoint(path, path.with_name("m.pt2"), **trust),
}


@pytest.fixture
def handed(tiny_run, tmp_path, monkeypatch):
    """Make a checkpoint whose config names ``mine.Model``, beside a module that notes its import."""
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom bixt3d.models import BiXTClassifier\nfrom bixt3d.tasks import Classification\n"
        f"Path({str(tmp_path / 'imported')!r}).touch()\nclass Model(BiXTClassifier): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])

    def written(change):
        content = load_checkpoint(tiny_run / "best.pt")
        config = from_yaml(content["config"])
        change(config)
        save_checkpoint(tmp_path / "best.pt", {**content, "config": to_yaml(config)})
        return tmp_path / "best.pt"

    yield written
    sys.modules.pop("mine", None)


def named(config):
    config["model"]["_target_"] = "mine.Model"


@pytest.mark.parametrize("way", WAYS)
def test_code_of_others_is_not_even_imported(handed, way):
    path = handed(named)
    with pytest.raises(ValueError, match=NAMED.format(r"mine\.Model")) as said:
        WAYS[way](path)
    assert "\n" not in str(said.value)
    assert not path.with_name("imported").exists()


@pytest.mark.parametrize("way", ["load", "evaluate"])
def test_whoever_trusts_a_checkpoint_says_so(handed, one_thread, way):
    path = handed(named)
    WAYS[way](path, trust_code=True)
    assert path.with_name("imported").exists()


def test_the_classifier_that_says_the_category_is_a_checkpoint_too(handed, tiny_run):
    with pytest.raises(ValueError, match=NAMED.format(r"mine\.Model")):
        load(tiny_run, classifier=handed(named), device="cpu")
    # one that is trusted is loaded, and then found to say nothing that this model would not know
    with pytest.raises(ValueError, match="classifier"):
        load(tiny_run, classifier=handed(named), device="cpu", trust_code=True)


def test_overrides_are_the_users_own(handed, one_thread):
    path = handed(lambda config: None)
    evaluate_checkpoint(path, ["task._target_=mine.Classification", "train.accelerator=cpu"])
    assert path.with_name("imported").exists()


def node(name):
    return {"model": {"_target_": "bixt3d.models.BiXTClassifier", "_args_": [[{"_target_": name}]]}}


@pytest.mark.parametrize(
    "name",
    [
        "numpy.savetxt",
        "bixt3d.modelsx.Model",
        "bixt3d.models:BiXTClassifier",
        "bixt3d.datasets.shapes.np.savetxt",  # what a module imports
        "torch.nn.modules.module.torch.load",
        "torch.nn.Module.__class__",
        "torch.nn.Module.__init__",
        "torch.utils.cpp_extension.load",
        "bixt3d.io.writing.write_text",
        "bixt3d.datasets.files.download",  # functions of data sets write files
        "bixt3d.datasets.ModelNet40.load",
        7,
    ],
)
def test_a_name_that_leads_elsewhere_is_found_wherever_it_stands(name):
    assert foreign_name(node(name)) == str(name)


@pytest.mark.parametrize(
    "name",
    [
        *("bixt3d.layers.bidirectional_cross", "bixt3d.datasets.transforms.Jitter", "torch.nn.GELU"),
        *(
            "bixt3d.optim.step_decay",
            "torch.optim.lr_scheduler.OneCycleLR",
            "bixt3d.models.of_tomorrow.Model",
        ),
    ],
)
def test_names_of_the_toolkit_and_of_torch_are_free(name):
    assert foreign_name(node(name)) is None


def test_a_name_that_would_be_made_by_interpolation_is_none(handed):
    """Hydra interpolates once more, when the text that was escaped stands there bare."""
    made = "${oc.create:'{_target_: mine.Model}'}"
    path = handed(lambda config: config["model"].update(tokenizer="\\" + made))
    assert from_yaml(load_checkpoint(path)["config"])["model"]["tokenizer"] == made
    with pytest.raises(ValueError, match=r"its config names .*oc\.create"):
        load(path, device="cpu")
    assert not path.with_name("imported").exists()


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("predict.py", ["cloud.xyz", "--device", "cpu"]),
        ("view_parts.py", ["cloud.xyz", "--device", "cpu", "--save", "scene.html"]),
        ("export.py", ["m.pt2"]),
        ("publish.py", ["out"]),
    ],
)
def test_every_script_has_the_option(handed, capsys, script, arguments):
    path = handed(named)
    path.with_name("cloud.xyz").write_text("0 0 0\n1 0 0\n0 1 0\n0 0 1\n")
    main = runpy.run_path(str(ROOT / "scripts" / script))["main"]
    with pytest.raises(SystemExit) as ended:
        main([str(path), *arguments])
    assert "its config names 'mine.Model'" in str(ended.value.code)
    assert main([str(path), *arguments, "--trust-code"]) == 0


def test_evaluate_takes_it_as_a_key(handed, monkeypatch, capsys):
    path = handed(named)
    main = runpy.run_path(str(ROOT / "scripts" / "evaluate.py"))["main"]
    arguments = ["evaluate.py", str(path), "train.accelerator=cpu"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match=r"its config names 'mine\.Model'"):
        main()
    monkeypatch.setattr(sys, "argv", [*arguments, "trust_code=true"])
    main()
    assert "41 clouds" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*arguments, "trust_code=yes"])
    with pytest.raises(SystemExit, match="trust_code: expected true or false, got 'yes'"):
        main()
