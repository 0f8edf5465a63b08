"""A written model is the model of the checkpoint, whatever the number of clouds and points."""

import builtins
import importlib
import inspect
import json
import logging
import sys

import numpy as np
import pytest
import torch
from places import ROOT
from toys import segmenter

from bixt3d.checkpoint import load_checkpoint, save_checkpoint
from bixt3d.config import from_yaml, to_yaml
from bixt3d.inference.export import describe, export_checkpoint, own_ops
from bixt3d.inference.loading import load
from bixt3d.io import turn_to_y
from bixt3d.training.assembly import build_model, build_task

CLASSES, PARTS = ["bag", "cap"], ["bag/a", "bag/b", "cap/c"]
SMALL = {
    "naive": ["quickstart.yaml"],
    "hierarchy": [
        "modelnet40_hierarchy.yaml",
        "model.encoder.depth=2",
        "model.encoder.refinement.width=8",
        "model.encoder.refinement.num_neighbors=4",
    ],
    "naive parts": ["shapenetpart_naive.yaml", "model.encoder.depth=2"],
    "decoder": [
        "quickstart_partseg.yaml",
        "model.encoder.refinement.width=8",
        "model.encoder.refinement.num_neighbors=4",
    ],
    "pointmlp": [
        "modelnet40_naive.yaml",
        "model=pointmlp",
        "model.encoder.embedding_dim=4",
        "+model.encoder.num_neighbors=[4,4,4,4]",
    ],
}
LARGE = {"decoder", "pointmlp"}  # to trace
OPS = {"hierarchy": {"farthest_point_sample", "knn"}, "decoder": {"farthest_point_sample", "knn", "three_nn"}}
OPS["pointmlp"] = OPS["hierarchy"]


@pytest.fixture
def checkpoint(compose, tmp_path):
    """Write the checkpoint of a small model with random weights; returns its path."""

    def write(name):
        file, *overrides = SMALL[name]
        narrow = [
            "model.encoder.dim=16",
            "model.encoder.num_latents=3",
            "model.encoder.num_heads=2",
        ]
        if name == "decoder":
            narrow.append("model.encoder.token_dims=[16,16,16]")
        if name == "pointmlp":
            narrow = []
        config = compose(ROOT / "cfgs" / file, *overrides, *narrow, "data.num_points=48")
        torch.manual_seed(0)
        model = build_model(config, build_task(config, CLASSES, PARTS))
        for parameter in model.parameters():
            if parameter.dim() == 2 and not parameter.any():
                torch.nn.init.normal_(parameter)  # a head starts at zero, which would hide everything
        path = tmp_path / "best.pt"
        content = {"config": to_yaml(config), "classes": CLASSES, "parts": PARTS, "model": model.state_dict()}
        save_checkpoint(path, content)
        return path

    return write


def inputs(predictor, clouds, points):
    given = (torch.rand(clouds, points, predictor.model.in_channels),)
    return (*given, torch.arange(clouds) % len(CLASSES)) if predictor.takes_category else given


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in SMALL]
)
def test_a_program_is_the_model(checkpoint, tmp_path, name):
    deferring = "prefer_deferred_runtime_asserts_over_guards"
    if name == "hierarchy" and deferring not in inspect.signature(torch.export.export).parameters:
        with pytest.raises(
            RuntimeError, match=r"export: torch .* cannot defer checks of sizes to the exported graph"
        ):
            export_checkpoint(checkpoint(name), tmp_path / "model.pt2")
        return
    done = export_checkpoint(checkpoint(name), tmp_path / "model.pt2")
    assert done.difference < 1e-4
    extra = {"metadata.json": ""}
    program = torch.export.load(done.path, extra_files=extra)
    predictor = load(tmp_path / "best.pt", device="cpu")
    assert {node.split(".")[1] for node in own_ops(program)} == OPS.get(name, set())
    for clouds, points in ((1, int(done.metadata["min_points"])), (3, 64)):
        given = inputs(predictor, clouds, points)
        with torch.no_grad():
            got, expected = program.module()(*given), predictor.model(*given)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    metadata = json.loads(extra["metadata.json"])
    assert metadata == done.metadata
    assert json.loads(metadata["classes"]) == CLASSES
    assert metadata["in_channels"] == str(predictor.model.in_channels)
    assert "unit sphere" in metadata["normalisation"]
    assert metadata["task"] == ("parts" if name in ("naive parts", "decoder") else "classes")
    assert metadata["takes_category"] == ("true" if predictor.takes_category else "false")
    with_normals = predictor.model.in_channels == 6
    assert metadata["channels"] == ("x y z, then the unit normal" if with_normals else "x y z")


@pytest.mark.parametrize("name", ["naive", "naive parts"])
def test_onnx_is_the_model(checkpoint, tmp_path, capfd, name):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    done = export_checkpoint(checkpoint(name), tmp_path / "folder" / "model.onnx")
    assert done.difference < 1e-4
    assert min(done.seconds) > 0
    session = runtime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    predictor = load(tmp_path / "best.pt", device="cpu")
    names = [node.name for node in session.get_inputs()]
    assert names == (["points", "category"] if name == "naive parts" else ["points"])
    for clouds, points in ((1, 20), (4, 81)):
        given = inputs(predictor, clouds, points)
        (got,) = session.run(["logits"], {k: v.numpy() for k, v in zip(names, given, strict=True)})
        with torch.no_grad():
            expected = predictor.model(*given)
        torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["parts"]) == (PARTS if name == "naive parts" else [])
    assert metadata["num_points"] == "48"
    assert capfd.readouterr() == ("", ""), "the exporter talks of itself"
    assert logging.root.manager.disable == logging.NOTSET, "others may talk again"


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_a_file_says_how_the_clouds_of_training_lay_and_what_turns_them(up):
    """Followed to the letter, the turn of the metadata is that of training."""
    told = describe(segmenter(up=up), "name")
    assert (told["up"], told["trained_up"]) == ("y", up)
    cloud = np.random.default_rng(0).normal(size=(9, 3))
    columns = {"x": cloud[:, 0], "y": cloud[:, 1], "z": cloud[:, 2], "-x": -cloud[:, 0], "-y": -cloud[:, 1]}
    turned = np.stack([columns[name] for name in told["turn"].split()], axis=1)
    assert np.array_equal(turned, turn_to_y(cloud, up))
    upright = turned[:, 1]
    assert np.array_equal(upright, columns[up])


def test_the_weights_are_those_that_a_checkpoint_serves(checkpoint, tmp_path):
    """Other weights in the checkpoint, other logits in the file."""
    path, given = checkpoint("naive"), (torch.rand(1, 30, 3),)
    found = []
    for scale in (1.0, 3.0):
        content = load_checkpoint(path)
        content["model"]["head.weight"] *= scale
        save_checkpoint(path, content)
        done = export_checkpoint(path, tmp_path / "new" / "folder" / "model.pt2")
        found.append(torch.export.load(done.path).module()(*given))
    bias = content["model"]["head.bias"]
    torch.testing.assert_close(found[1] - bias, 3 * (found[0] - bias), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("more", "said"), [(1e-2, r"0\.01"), (float("nan"), "nan")])
def test_a_file_that_computes_something_else_is_reported(checkpoint, tmp_path, monkeypatch, more, said):
    module = importlib.import_module("bixt3d.inference.export")
    real = module.torch.export.load

    class Off:
        def __init__(self, path):
            self.program = real(path)

        def module(self):
            run = self.program.module()
            return lambda *given: run(*given) + more

    monkeypatch.setattr(module.torch.export, "load", Off)
    with pytest.raises(
        RuntimeError, match=rf"model\.pt2: its logits differ from the model's by {said} on 1 clouds"
    ):
        export_checkpoint(checkpoint("naive"), tmp_path / "model.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"], "such a file is not left behind"


def test_an_onnx_file_that_computes_something_else_is_not_left_behind(checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.setattr(importlib.import_module("bixt3d.inference.export"), "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match=r"model\.onnx: its logits differ"):
        export_checkpoint(checkpoint("naive"), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_place_where_nothing_can_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "afile").touch()
    (tmp_path / "dir.pt2").mkdir()
    with pytest.raises(ValueError, match=r"afile is not a folder; expected one to write into"):
        export_checkpoint(tmp_path / "absent.pt", tmp_path / "afile" / "m.pt2")
    with pytest.raises(ValueError, match=r"dir\.pt2: is a folder; expected the name of a file"):
        export_checkpoint(tmp_path / "absent.pt", tmp_path / "dir.pt2")


def test_what_cannot_be_written(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"unknown format '\.pb', expected one of \.onnx, \.pt2"):
        export_checkpoint(tmp_path / "best.pt", tmp_path / "model.pb")
    path = checkpoint("hierarchy")
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
        with pytest.raises(
            NotImplementedError,
            match=r"ONNX has no farthest_point_sample and no knn, .* write .*model\.pt2 instead",
        ):
            export_checkpoint(path, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", builtins)
    with pytest.raises(ImportError, match=r"needs onnxscript; pip install onnx onnxscript onnxruntime"):
        export_checkpoint(path, tmp_path / "model.onnx")


def test_without_onnxruntime_the_file_is_written_and_not_checked(checkpoint, tmp_path, monkeypatch, call):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = export_checkpoint(checkpoint("naive"), tmp_path / "model.onnx")
    assert done.path.exists()
    assert done.difference is None
    assert done.seconds is None


def test_the_script_says_what_it_wrote(checkpoint, tmp_path, call):
    path = checkpoint("naive")
    status, out, err = call("export.py", path, tmp_path / "model.pt2")
    assert status == 0, err
    assert "model.pt2: quickstart, " in out
    assert "largest difference of the logits on two other sizes: " in out
    assert from_yaml(load_checkpoint(path)["config"])["name"] == "quickstart"
    status, out, err = call("export.py", path, tmp_path / "model.txt")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
