import numpy as np
import pytest

from bixt3d.viewer.palette import CORRECT, PALETTE, PLAIN, WRONG, ramp_colors
from bixt3d.viewer.scene import attention_scene, part_scene

PARTS = ("cup/body", "cup/handle", "hat/brim")
POINTS = np.array([[500.0, 0, 0], [502, 0, 0], [500, 2, 0], [502, 2, 0]])


def test_prediction_alone():
    scene = part_scene("a", POINTS, np.array([0, 0, 0, 1]), PARTS)
    assert [view.title for view in scene.views] == ["prediction"]
    assert [entry.text for entry in scene.views[0].legend] == ["body 75.0 %", "handle 25.0 %"]
    assert scene.views[0].legend[1].color == tuple(PALETTE[1])
    assert np.array_equal(scene.views[0].colors, PALETTE[[0, 0, 0, 1]])
    assert np.allclose(np.linalg.norm(scene.points, axis=1), 1)


def test_prediction_truth_and_errors_share_their_legend():
    scene = part_scene("a", POINTS, np.array([0, 0, 0, 0]), PARTS, np.array([0, 0, 1, 1]))
    assert [view.title for view in scene.views] == ["prediction", "ground truth", "errors"]
    assert [entry.text for entry in scene.views[0].legend] == ["body 100.0 %", "handle 0.0 %"]
    assert [entry.text for entry in scene.views[1].legend] == ["body 50.0 %", "handle 50.0 %"]
    assert [entry.text for entry in scene.views[2].legend] == ["correct 50.0 %", "wrong 50.0 %"]
    assert np.array_equal(scene.views[2].colors, [CORRECT, CORRECT, WRONG, WRONG])


@pytest.mark.parametrize("truth", [[0, 1, 1, 1], [0, 0, 1, 1], [0, -1, 1, 1], [-1, -1, -1, -1]])
def test_every_line_of_a_legend_has_the_colour_of_its_share_of_the_points(truth):
    labels, truth = np.array([0, 0, 0, 1]), np.array(truth)
    for view in part_scene("a", POINTS, labels, PARTS, truth).views:
        shares = [(view.colors == entry.color).all(axis=1).mean() for entry in view.legend]
        assert shares == [entry.share for entry in view.legend], view.title
        assert sum(shares) == 1


def test_points_without_a_label_are_neither_correct_nor_wrong():
    scene = part_scene("a", POINTS, np.array([0, 0, 0, 1]), PARTS, np.array([0, 1, -1, -1]))
    assert np.array_equal(scene.views[2].colors, [CORRECT, WRONG, PLAIN, PLAIN])
    assert np.array_equal(scene.views[1].colors, [PALETTE[0], PALETTE[1], PLAIN, PLAIN])
    texts = [[entry.text for entry in view.legend] for view in scene.views]
    assert texts[0] == ["body 75.0 %", "handle 25.0 %"]
    assert texts[1] == ["body 25.0 %", "handle 25.0 %", "not labelled 50.0 %"]
    assert texts[2] == ["correct 25.0 %", "wrong 25.0 %", "not labelled 50.0 %"]


def test_parts_of_several_classes_keep_their_class():
    legend = part_scene("a", POINTS, np.array([0, 0, 2, 2]), PARTS).views[0].legend
    assert [entry.name for entry in legend] == ["cup/body", "hat/brim"]


def test_labels_that_do_not_fit():
    with pytest.raises(ValueError, match=r"labels: expected shape \(4,\)"):
        part_scene("a", POINTS, np.array([0]), PARTS)
    with pytest.raises(ValueError, match="truth: expected parts 0 to 2, got 0 to 3"):
        part_scene("a", POINTS, np.zeros(4, int), PARTS, np.array([0, 1, 2, 3]))
    with pytest.raises(ValueError, match="labels: expected parts 0 to 2, got -1 to 0"):
        part_scene("a", POINTS, np.array([0, 0, -1, 0]), PARTS)


def test_attention_is_darkest_where_it_is_largest():
    scene = attention_scene("a", POINTS, np.array([[0.0, 0.1, 0.2, 0.7], [1, 0, 0, 0]]), [3, 8])
    assert [view.title for view in scene.views] == ["latent 3", "latent 8"]
    darkness = -scene.views[0].colors.astype(int).sum(axis=1)
    assert darkness.argsort().tolist() == [0, 1, 2, 3]
    assert scene.views[1].colors.astype(int).sum(axis=1).argmin() == 0


def test_attention_is_scaled_by_its_own_percentile():
    """Of 101 weights from 0 to 100 the percentile is 99; a latent with a tenth of them looks the same."""
    weights = np.stack([np.arange(101.0), np.arange(101.0) / 10])
    one, two = attention_scene("a", np.eye(3)[np.arange(101) % 3], weights, [0, 1]).views
    assert np.array_equal(one.colors, two.colors)
    assert np.array_equal(one.colors, ramp_colors(np.arange(101) / 99))
    assert [entry.text for entry in one.legend] == ["no attention", "2.0 times the mean, or more"]
    assert [entry.color for entry in one.legend] == [tuple(one.colors[0]), tuple(one.colors[99])]
