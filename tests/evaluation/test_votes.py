"""Votes: a mean over stretched copies, the same whatever the batches, beside the plain figure."""

import json
from types import SimpleNamespace

import pytest
import torch

from bixt3d.datasets import Batch
from bixt3d.evaluation.evaluate import evaluate_checkpoint
from bixt3d.evaluation.votes import Voting
from bixt3d.tasks import Classification, PartSegmentation

CPU = "train.accelerator=cpu"
CLASSES, PARTS = ("a", "b", "c"), ("a/x", "b/y", "c/z")


class Sizes(torch.nn.Module):
    """Scores by the extent along each axis, or by the coordinates of each point; keeps what it saw."""

    def __init__(self, parts=False):
        super().__init__()
        self.parts, self.seen = parts, []

    def forward(self, points, category=None):
        self.seen.append(points)
        return 3 * (points if self.parts else points.amax(dim=1) - points.amin(dim=1))[..., :3]


def batch(index, channels=3):
    clouds = torch.rand(9, 20, channels, generator=torch.Generator().manual_seed(0)) * 2 - 1
    if channels == 6:
        clouds[..., 3:] = torch.nn.functional.normalize(clouds[..., 3:], dim=-1)
    index = torch.tensor(index)
    labels = index % 3
    return Batch(clouds[index], labels, labels[:, None].expand(-1, 20), index)


@pytest.mark.parametrize("parts", [False, True])
def test_probabilities_are_averaged_over_the_cloud_and_stretched_copies(parts):
    model = Sizes(parts)
    task = PartSegmentation(CLASSES, PARTS) if parts else Classification(CLASSES)
    plain = batch([4, 7, 1])
    found, target = Voting(task, 5, seed=3).predict(model, plain)
    assert torch.equal(model.seen[0], plain.points)
    ratios = torch.stack([seen / plain.points for seen in model.seen[1:]])  # (4, 3, 20, 3)
    assert ratios.shape[0] == 4
    torch.testing.assert_close(
        ratios, ratios[:, :, :1].expand_as(ratios), msg="one factor for a cloud and axis"
    )
    factors = ratios[:, :, 0]
    assert 0.85 <= factors.min() < 0.9 < 1.1 < factors.max() <= 1.15
    assert len(factors.flatten().unique()) == 4 * 3 * 3, "drawn anew for each copy, cloud and axis"
    by_hand = torch.stack([Sizes(parts)(seen).exp() for seen in model.seen])
    by_hand = (by_hand / by_hand.sum(dim=-1, keepdim=True)).mean(dim=0)
    torch.testing.assert_close(found.exp(), by_hand)
    assert torch.equal(target.part_labels if parts else target, plain.part_labels if parts else plain.labels)


def test_normals_stay_at_right_angles_to_what_is_stretched():
    model, plain = Sizes(), batch([2], channels=6)
    Voting(Classification(CLASSES), 2).predict(model, plain)
    normals = plain.points[0, :, 3:]
    tangents = torch.linalg.cross(normals, torch.rand(20, 3))
    factor = model.seen[1][0, :, :3] / plain.points[0, :, :3]
    stretched = model.seen[1][0, :, 3:]
    torch.testing.assert_close((tangents * factor * stretched).sum(dim=1), torch.zeros(20), atol=1e-5, rtol=0)
    torch.testing.assert_close(stretched.norm(dim=1), torch.ones(20))


def test_votes_depend_on_the_seed_and_not_on_the_batches():
    together, _ = Voting(Classification(CLASSES), 3, seed=1).predict(Sizes(), batch([0, 5, 8]))
    for place, cloud in enumerate((0, 5, 8)):
        alone, _ = Voting(Classification(CLASSES), 3, seed=1).predict(Sizes(), batch([cloud]))
        torch.testing.assert_close(together[place], alone[0])
    other, _ = Voting(Classification(CLASSES), 3, seed=2).predict(Sizes(), batch([0, 5, 8]))
    assert not torch.allclose(together, other)


def test_a_probability_of_nothing_can_still_be_compared():
    """The meter of parts puts minus infinity where a part belongs to another category."""
    task = SimpleNamespace(predict=lambda model, batch: (torch.tensor([[0.0, -400.0]]), None))
    found, _ = Voting(task, 2).predict(None, batch([0]))
    assert torch.isfinite(found).all()


def test_the_voted_figure_has_a_name_of_its_own_beside_the_plain_one(tiny_run, one_thread, tmp_path, capsys):
    plain = evaluate_checkpoint(tiny_run / "best.pt", [CPU])
    capsys.readouterr()
    result = evaluate_checkpoint(tiny_run / "best.pt", [CPU], votes=4, seed=2, out=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert result.summary() == plain.summary()
    figures = ", ".join(f"{name} {value:.2f} %" for name, value in plain.summary().items())
    assert lines[1] == f"  checkpoint {figures}"
    assert lines[3].startswith("  4 votes    OA ")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["results"]["checkpoint"] == plain.summary()
    assert (set(written["results"]), written["seed"]) == ({"checkpoint", "4 votes"}, 2)
    small = evaluate_checkpoint(
        tiny_run / "best.pt", [CPU, "train.eval_batch_size=7"], votes=4, seed=2, out=tmp_path
    )
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["results"] == written["results"]
    assert small.summary() == plain.summary()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"votes": 0}, "votes: expected at least 1, got 0"),
        ({"votes": 2, "seed": -1}, "seed: expected 0 or more"),
    ],
)
def test_votes_out_of_range_are_refused_before_the_work(options, said):
    with pytest.raises(ValueError, match=said):
        evaluate_checkpoint("no such file", [CPU], **options)
