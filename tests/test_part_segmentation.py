"""Part segmentation from config to figures, on the loop and the checkpoints of classification."""

import json

import pytest
import torch

from bixt3d.checkpoint import load_checkpoint, save_checkpoint
from bixt3d.evaluation.evaluate import evaluate_checkpoint
from bixt3d.inference.loading import load
from bixt3d.inference.showing import scenes_of_split
from bixt3d.tasks import Classification, PartSegmentation
from bixt3d.training.assembly import build_model, build_task
from bixt3d.training.experiment import train

SEGMENT = ("model=bixt_seg_naive", "task=part_segmentation", "train.epochs=2")
SEGMENT += ("data.stored_points=60", "data.num_test=25")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "run"
    return train(tiny(*SEGMENT, f"run_dir={folder}", "train.eval_sampling=all", "train.accelerator=cpu"))


def test_files_of_a_run(run):
    written = json.loads((run / "results.json").read_text())
    assert written["points"] == "all points"
    assert set(written["results"]) == {"last", "selected"}
    assert list(written["results"]["last"]) == [
        *("instance mIoU A", "class mIoU A", "instance mIoU C", "class mIoU C")
    ]
    assert (run / "parts.png").read_bytes().startswith(b"\x89PNG")
    lines = (run / "per_category.csv").read_text().splitlines()
    assert lines[0] == "category,clouds,mIoU_A_percent,mIoU_C_percent"
    assert len(lines) == 1 + 12
    content = torch.load(run / "last.pt", weights_only=True)
    assert content["parts"][0].rpartition("/")[0] == content["classes"][0]


def test_a_checkpoint_is_measured_alone_and_again_the_same(run, capsys):
    first = evaluate_checkpoint(run / "best.pt", ["train.accelerator=cpu"], split="test").summary()
    written = json.loads((run / "results.json").read_text())
    assert first == pytest.approx(written["results"]["selected"])
    assert "25 clouds, all points" in capsys.readouterr().out


def test_both_protocols_and_convention_b_on_request(run, capsys):
    result = evaluate_checkpoint(run, ["train.eval_sampling=first", "task.conventions=[A,B,C]"])
    assert "25 clouds, the first 32 points" in capsys.readouterr().out
    assert result.truth.sum(dim=1).tolist() == [32] * 25
    assert {"instance mIoU B", "class mIoU B"} <= set(result.summary())
    whole = evaluate_checkpoint(run)
    assert whole.truth.sum(dim=1).tolist() == [60] * 25  # 60 points in pieces of 32, none twice


def test_a_data_set_with_its_parts_in_another_order_is_refused(run, tmp_path):
    """It would be measured part against wrong part, at next to no IoU."""
    content = load_checkpoint(run / "best.pt")
    first, second, *others = content["parts"]
    content["parts"] = [second, first, *others]
    save_checkpoint(tmp_path / "best.pt", content)
    said = rf"was trained on other parts .*number 1 is '{second}'.* data set has .*'{first}'"
    with pytest.raises(ValueError, match=said):
        evaluate_checkpoint(tmp_path / "best.pt")
    with pytest.raises(ValueError, match=said):
        scenes_of_split(load(tmp_path / "best.pt", device="cpu"), "test", [0])


def test_the_loss_is_the_cross_entropy_of_each_point():
    task = PartSegmentation(("cup",), ("cup/body", "cup/handle"))
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [5.0, 0.0]]])
    labels = torch.tensor([[0, 0, -1]])  # the last one is a filler
    target = type("Target", (), {"part_labels": labels})
    by_hand = (torch.log1p(torch.exp(torch.tensor(-2.0))) + torch.log1p(torch.exp(torch.tensor(1.0)))) / 2
    torch.testing.assert_close(task.loss(logits, target), by_hand)


def test_smoothing_spreads_a_share_over_all_parts():
    task = PartSegmentation(("cup",), ("cup/body", "cup/handle"), label_smoothing=0.2)
    target = type("Target", (), {"part_labels": torch.tensor([[1]])})
    found = task.loss(torch.tensor([[[0.0, 2.0]]]), target)
    per_part = torch.log1p(torch.exp(torch.tensor([2.0, -2.0])))  # cross-entropy if it were that part
    torch.testing.assert_close(found, 0.1 * per_part[0] + 0.9 * per_part[1])


def test_losses_are_float32_whatever_the_logits():
    logits, labels = torch.tensor([[3.0, -1.7, 0.4], [0.1, 2.2, -5.0]]).bfloat16(), torch.tensor([2, 1])
    parts = PartSegmentation(("cup",), ("cup/a", "cup/b", "cup/c"))
    points = type("Target", (), {"part_labels": labels[None]})
    by_hand = -logits.double().log_softmax(dim=1)[[0, 1], labels].mean().float()
    for found in (Classification(("a", "b", "c")).loss(logits, labels), parts.loss(logits[None], points)):
        torch.testing.assert_close(found, by_hand)


def test_the_first_convention_selects():
    parts = ("cup/body", "cup/handle")
    assert PartSegmentation(("cup",), parts).selects == "instance mIoU A"
    assert PartSegmentation(("cup",), parts, conventions=("C", "A")).selects == "instance mIoU C"


def test_what_a_model_is_told_of_the_data(tiny):
    parts = ("a/x", "a/y", "b/x")
    assert Classification(("a", "b"), parts).model_arguments() == {"num_classes": 2}
    assert PartSegmentation(("a", "b"), parts).model_arguments() == {"num_parts": 3, "num_categories": 2}
    config = tiny("model=bixt_seg_naive", "task=part_segmentation")
    task = build_task(config, ("a", "b"), parts)
    assert build_model(config, task).head.out_features == 3
    assert task.parts == parts


def test_bad_settings(tiny, tmp_path):
    with pytest.raises(ValueError, match="parts: the data set has no part labels"):
        PartSegmentation(("a",), ())
    with pytest.raises(ValueError, match="conventions: expected some of A, B, C, got 'D'"):
        PartSegmentation(("a",), ("a/x",), conventions=("A", "D"))
    with pytest.raises(ValueError, match="label_smoothing: expected at least 0 and below 1, got 1"):
        PartSegmentation(("a",), ("a/x",), label_smoothing=1)
    with pytest.raises(
        ValueError, match=r"train\.eval_sampling: expected first for Classification, got 'all'"
    ):
        train(tiny(f"run_dir={tmp_path / 'run'}", "train.eval_sampling=all"))
    with pytest.raises(
        ValueError, match="does not fit the task PartSegmentation, since it takes no num_categories"
    ):
        build_model(tiny("task=part_segmentation"), PartSegmentation(("a",), ("a/x",)))
