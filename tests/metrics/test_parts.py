"""Part IoU by hand, in each convention, and the meter in pieces."""

import pytest
import torch

from bixt3d.metrics.parts import IGNORED, PartMeter, PartTarget, owners

CLASSES = ("lamp", "mug")
PARTS = ("lamp/foot", "lamp/shade", "lamp/bulb", "mug/body", "mug/handle")


def logits(predicted: list[list[int]], second: list[list[int]] | None = None) -> torch.Tensor:
    """Scores whose best is ``predicted`` and whose second best is ``second``."""
    best = torch.nn.functional.one_hot(torch.tensor(predicted), len(PARTS)).float()
    if second is None:
        return best
    return best + 0.5 * torch.nn.functional.one_hot(torch.tensor(second), len(PARTS))


def measure(predicted, truth, categories, second=None):
    meter = PartMeter(CLASSES, PARTS, conventions=("A", "B", "C"))
    index = torch.arange(len(truth))
    meter.update(logits(predicted, second), PartTarget(torch.tensor(truth), torch.tensor(categories), index))
    return meter.compute()


def test_the_conventions_differ_as_published():
    """A lamp without a bulb in the truth; one foot point is called a mug's body, one shade a bulb."""
    result = measure(
        predicted=[[0, 0, 3, 1, 2]],
        second=[[0, 0, 0, 1, 2]],  # within its category the third point is a foot after all
        truth=[[0, 0, 0, 1, 1]],
        categories=[0],
    )
    # A: foot 3/3, shade 1/2, bulb (absent, predicted) 0. B: foot 2/3. C: as B without the bulb.
    assert result.instance_miou("A") == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert result.instance_miou("B") == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert result.instance_miou("C") == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_part_absent_from_truth_and_prediction_counts_one_or_not_at_all():
    result = measure(predicted=[[0, 1, 1, 1]], truth=[[0, 0, 1, 1]], categories=[0])
    foot, shade = 1 / 2, 2 / 3
    assert result.instance_miou("A") == pytest.approx((foot + shade + 1) / 3)
    assert result.instance_miou("B") == pytest.approx((foot + shade + 1) / 3)
    assert result.instance_miou("C") == pytest.approx((foot + shade) / 2)


def test_class_and_instance_mean_weigh_categories_differently():
    """Two perfect mugs and a lamp at 0 under C: 2/3 over clouds, 1/2 over categories."""
    result = measure(predicted=[[3, 4], [3, 3], [1, 0]], truth=[[3, 4], [3, 3], [0, 1]], categories=[1, 1, 0])
    assert result.instance_miou("C") == pytest.approx(2 / 3)
    assert result.class_miou("C") == pytest.approx(1 / 2)
    assert result.category_mious("C").tolist() == pytest.approx([0, 1])
    summary = result.summary()
    assert summary["instance mIoU C"] == pytest.approx(100 * 2 / 3)
    assert summary["class mIoU A"] == pytest.approx(100 * (1 + 1 / 3) / 2)  # the lamp's bulb counts 1


def test_a_category_without_clouds_does_not_count():
    result = measure(predicted=[[3, 4]], truth=[[3, 4]], categories=[1])
    assert result.class_miou("A") == 1
    rows = result.tables()["per_category.csv"]
    assert rows[1] == ["lamp", "0", "", "", ""]
    assert rows[2] == ["mug", "1", "100.00", "100.00", "100.00"]


def test_agrees_with_a_loop_over_clouds_and_parts():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 30, 5, generator=generator)
    categories = torch.randint(2, (20,), generator=generator)
    parts = {0: [0, 1, 2], 1: [3, 4]}
    truth = torch.stack(
        [torch.tensor(parts[int(c)])[torch.randint(2, (30,), generator=generator)] for c in categories]
    )
    meter = PartMeter(CLASSES, PARTS, conventions=("A", "B", "C"))
    meter.update(scores, PartTarget(truth, categories, torch.arange(20)))
    result = meter.compute()
    for convention in "ABC":
        means = []
        for row, t, c in zip(scores, truth, categories, strict=True):
            own = parts[int(c)]
            guess = [max(own if convention == "A" else range(5), key=lambda p, r=r: r[p]) for r in row]
            ious = []
            for p in own:
                true = {i for i in range(30) if t[i] == p}
                found = {i for i in range(30) if guess[i] == p}
                if convention == "C" and not true:
                    continue
                ious.append(len(true & found) / len(true | found) if true | found else 1.0)
            means.append(sum(ious) / len(ious))
        assert result.cloud_ious(convention).tolist() == pytest.approx(means)


def test_pieces_of_a_cloud_are_counted_together_and_fillers_not():
    whole = measure(predicted=[[0, 0, 1, 1, 2, 0]], truth=[[0, 0, 0, 1, 1, 2]], categories=[0])
    meter = PartMeter(CLASSES, PARTS)
    pieces = [([[0, 0, 1, 1]], [[0, 0, 0, 1]]), ([[2, 0, 4, 1]], [[1, 2, IGNORED, IGNORED]])]
    for predicted, truth in pieces:
        meter.update(logits(predicted), PartTarget(torch.tensor(truth), torch.tensor([0]), torch.tensor([7])))
    result = meter.compute()
    assert len(result.categories) == 1
    assert result.instance_miou("A") == pytest.approx(whole.instance_miou("A"))
    assert result.truth.tolist() == whole.truth.tolist()


@pytest.mark.parametrize("convention", ["A", "B", "C"])
def test_a_cloud_of_which_no_point_counts_is_passed_over(convention):
    wrong, unknown = [[0, 0, 1, 1], [0, 1, 1, 1]], [IGNORED] * 4
    alone = measure(predicted=[wrong[0]], truth=[wrong[1]], categories=[0])
    beside = measure(predicted=[wrong[0], [3, 3, 4, 4]], truth=[wrong[1], unknown], categories=[0, 1])
    assert beside.instance_miou(convention) == alone.instance_miou(convention) < 1
    assert beside.class_miou(convention) == alone.class_miou(convention)


def test_pieces_may_come_in_any_order():
    """A lamp in two pieces around a mug: each cloud keeps its category and its own points."""
    meter = PartMeter(CLASSES, PARTS)
    truth = torch.tensor([[0, 0], [3, 4], [1, 2]])
    target = PartTarget(truth, torch.tensor([0, 1, 0]), torch.tensor([9, 2, 9]))
    meter.update(logits([[0, 1], [3, 4], [1, 2]]), target)
    result = meter.compute()
    assert result.categories.tolist() == [1, 0]  # by the number of the cloud
    assert result.truth.tolist() == [[0, 0, 0, 1, 1], [2, 1, 1, 0, 0]]
    assert result.cloud_ious("A").tolist() == pytest.approx([1, (1 / 2 + 1 / 2 + 1) / 3])


def test_a_part_belongs_to_the_class_of_its_whole_name():
    table = owners(("cup/body", "cupboard/door", "home/cup/handle"), ("cup", "cupboard", "home/cup"))
    assert table.tolist() == torch.eye(3).bool().tolist()


def test_a_convention_that_does_not_exist_is_refused():
    result = measure(predicted=[[0, 1]], truth=[[0, 1]], categories=[0])
    with pytest.raises(ValueError, match=r"^conventions: expected some of A, B, C, got 'a'"):
        result.instance_miou("a")


def test_picture_and_tables(tmp_path):
    result = measure(predicted=[[0, 1]], truth=[[0, 1]], categories=[0])
    result.draw(tmp_path / result.picture, "title")
    assert (tmp_path / "parts.png").stat().st_size > 1000
    rows = result.tables()["per_part.csv"]
    assert [row[0] for row in rows[1:]] == list(PARTS)
    assert rows[1][1] == "50.00"
    assert rows[4][2:] == ["", "", ""]  # no mug was measured


def test_bad_input():
    with pytest.raises(ValueError, match="expected at least one cloud"):
        PartMeter(CLASSES, PARTS).compute()
    with pytest.raises(ValueError, match="'chair/leg' belongs to none of the categories"):
        PartMeter(CLASSES, (*PARTS, "chair/leg"))
    with pytest.raises(ValueError, match="the category 'mug' has no parts"):
        PartMeter(CLASSES, PARTS[:3])
