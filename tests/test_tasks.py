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


def test_balanced_weights_let_every_class_count_alike():
    """Six clouds of a, three of b, none of c, d and e: a sum over the training split splits into halves."""
    torch.manual_seed(2)
    labels = torch.tensor([0] * 6 + [1] * 3)
    task = Classification(CLASSES, class_weights="balanced")
    task.count(labels.numpy())
    assert task.weights.tolist() == [9 / (2 * 6), 9 / (2 * 3), 1, 1, 1]
    logits = torch.randn(9, 5)
    each = -torch.log_softmax(logits, dim=1)[torch.arange(9), labels]
    torch.testing.assert_close(loss(task, logits, labels), (each[:6].mean() + each[6:].mean()) / 2)


@pytest.mark.parametrize("mixed", [False, True])
def test_listed_weights_weigh_the_clouds_of_a_class(mixed):
    torch.manual_seed(3)
    logits, labels, weights = torch.randn(2, 5), torch.tensor([0, 3]), [2.0, 1, 1, 0.5, 0]
    shares = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0, 0, 0.4, 0.6]])
    rows = shares if mixed else torch.nn.functional.one_hot(labels, 5).float()
    total = 2 if mixed else 2.5
    expected = by_hand(logits, rows * torch.tensor(weights)) * 2 / total
    task = Classification(CLASSES, class_weights=weights)
    torch.testing.assert_close(loss(task, logits, labels, shares if mixed else None), expected)


def test_weights_that_were_never_balanced_are_refused():
    with pytest.raises(ValueError, match=r"class_weights: balanced weights need the labels of training"):
        loss(Classification(CLASSES, class_weights="balanced"), torch.zeros(1, 5), torch.tensor([0]))


@pytest.mark.parametrize(
    "weights", ["even", [1, 1, 1], [1, 1, 1, 1, -1], [0] * 5, [1, 1, 1, 1, float("nan")], ["1"] * 5]
)
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(
        ValueError, match=r"class_weights: expected balanced, null or 5 numbers of at least 0"
    ):
        Classification(CLASSES, class_weights=weights)


def test_a_figure_that_there_is_not_cannot_select():
    with pytest.raises(ValueError, match="selects: expected one of OA, mAcc, got 'mIoU'"):
        Classification(CLASSES, selects="mIoU")


def test_a_figure_of_a_task_of_ones_own_selects():
    class Worst(Classification):
        selects = "worst class"

    assert Worst(CLASSES).selects == "worst class"
    assert Worst(CLASSES, selects="mAcc").selects == "mAcc"
    assert (Classification(CLASSES).selects, Classification(CLASSES, selects="mAcc").selects) == (
        "OA",
        "mAcc",
    )


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
