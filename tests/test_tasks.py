"""The loss of classification, against sums written out."""

import pytest
import torch

from bixt3d.datasets import Batch
from bixt3d.metrics.parts import PartTarget
from bixt3d.tasks import Classification, PartSegmentation

CLASSES = tuple("abcde")


def loss(task, logits, labels, targets=None):
    batch = Batch(torch.zeros(len(logits), 1, 3), labels, None, torch.arange(len(logits)), targets)
    return task.loss(*task.predict(lambda points: logits, batch))


def by_hand(logits, rows):
    """Mean over clouds of minus the sum of target times log-probability."""
    return -(rows * torch.log(logits.exp() / logits.exp().sum(dim=1, keepdim=True))).sum(dim=1).mean()


def test_the_smoothing_of_pointmlp_is_a_little_more_of_torchs():
    """0.2 spread over the other classes is 0.2 * C / (C - 1) spread over all."""
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 5), torch.arange(7) % 5
    rows = torch.full((7, 5), 0.2 / 4)
    rows[torch.arange(7), labels] = 0.8
    task = Classification(CLASSES, label_smoothing=0.2 * 5 / 4)
    torch.testing.assert_close(loss(task, logits, labels), by_hand(logits, rows))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mixed_clouds_weigh_both_classes(smoothing):
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 5), torch.tensor([0, 3])
    shares = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0, 0, 0.4, 0.6]])
    expected = by_hand(logits, (1 - smoothing) * shares + smoothing / 5)
    task = Classification(CLASSES, label_smoothing=smoothing)
    torch.testing.assert_close(loss(task, logits, labels, shares), expected)


def test_a_loss_of_half_precision_is_taken_in_float32():
    logits = torch.tensor([[30000.0, 29999.0, 0, 0, 0]]).half()
    task = Classification(CLASSES)
    assert loss(task, logits, torch.tensor([0])).dtype == torch.float32


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="label_smoothing: expected at least 0 and below 1"):
        Classification(CLASSES, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_of_parts_is_the_mean_over_labelled_points(smoothing):
    torch.manual_seed(2)
    task = PartSegmentation(("cup",), ("cup/body", "cup/handle", "cup/rim"), label_smoothing=smoothing)
    logits = torch.randn(2, 4, 3, requires_grad=True)
    labels = torch.tensor([[0, -1, 2, 1], [-1, -1, 1, -1]])
    known = labels >= 0
    rows = torch.full((4, 3), smoothing / 3)
    rows[torch.arange(4), labels[known]] += 1 - smoothing
    target = PartTarget(labels, torch.zeros(2).long(), torch.arange(2))
    torch.testing.assert_close(task.loss(logits, target), by_hand(logits[known], rows))
    nothing = task.loss(logits, target._replace(part_labels=torch.full((2, 4), -1)))
    nothing.backward()
    assert nothing == 0
    assert (logits.grad == 0).all()
