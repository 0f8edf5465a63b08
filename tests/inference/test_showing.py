"""Scenes of files and of data sets: which clouds, in which place, of which class, beside which truth."""

import numpy as np
import pytest
from toys import PARTS, Classifier, segmenter

from bixt3d.datasets import PointClouds
from bixt3d.inference import showing
from bixt3d.inference.predictor import Predictor
from bixt3d.io import unit_sphere
from bixt3d.viewer.scene import part_scene

CLASSES = ("cup", "hat")


class Things:
    """Eight clouds in turn of both classes, of which each point is of a part of its class."""

    parts, num_points = PARTS, 32

    def __init__(self, root="here", classes=CLASSES, up="y"):
        self.root, self.classes = root, tuple(classes)

    def load(self, split):
        rng = np.random.default_rng(0)
        labels = np.arange(8) % 2
        part = np.where(labels[:, None] == 0, rng.integers(2, size=(8, 40)), 2)
        return PointClouds(
            points=rng.normal(size=(8, 40, 3)).astype(np.float32),
            labels=labels,
            classes=self.classes,
            names=tuple(f"{self.root}/{split}/{i}" for i in range(8)),
            part_labels=part if self.classes == CLASSES else None,
            parts=self.parts if self.classes == CLASSES else (),
        )


def trained_on_things(predictor, **data):
    predictor.config = {"data": {"_target_": f"{__name__}.Things", **data}}
    return predictor


def parts_of(scene):
    return {entry.name.rpartition("/")[2] for entry in scene.views[0].legend if entry.share}


def test_the_first_six_shapes_beside_their_truth():
    scenes = showing.scenes_of_split(trained_on_things(segmenter()), "val")
    assert [scene.name for scene in scenes] == [f"here/val/{i}" for i in range(6)]
    clouds = Things().load("val")
    for i, scene in enumerate(scenes):
        assert np.allclose(scene.points, unit_sphere(clouds.points[i]), atol=1e-6)
        expected = segmenter()(clouds.points[i], category=CLASSES[i % 2]).labels
        same = part_scene("x", clouds.points[i], expected, PARTS, clouds.part_labels[i])
        assert [view.title for view in scene.views] == ["prediction", "ground truth", "errors"]
        for view, wanted in zip(scene.views, same.views, strict=True):
            assert np.array_equal(view.colors, wanted.colors)


def test_shapes_are_chosen_by_number_from_the_folder_that_is_given():
    predictor = trained_on_things(segmenter())
    scenes = showing.scenes_of_split(predictor, "test", [7, 0], "there")
    assert [scene.name for scene in scenes] == ["there/test/7", "there/test/0"]
    for wrong in (-1, 8):
        with pytest.raises(ValueError, match=rf"index: the test split has shapes 0 to 7, got {wrong}"):
            showing.scenes_of_split(predictor, "test", [0, wrong])


def test_a_model_of_parts_is_told_the_true_class_unless_another_is_named():
    predictor = trained_on_things(segmenter())
    cup, hat = showing.scenes_of_split(predictor, "val", [0, 1])
    assert parts_of(cup) <= {"body", "handle"}
    assert parts_of(hat) == {"brim"}
    scenes = showing.scenes_of_split(predictor, "val", [0, 1], category="hat")
    assert [parts_of(scene) for scene in scenes] == [{"brim"}, {"brim"}]


def test_a_data_set_of_other_classes_is_refused():
    predictor = trained_on_things(segmenter(), classes=["hat", "cup"])
    with pytest.raises(ValueError, match=r"was trained on other classes .*'cup'\) than .*'hat'\)"):
        showing.scenes_of_split(predictor, "val")


def test_a_classifier_shows_its_two_best_classes(tmp_path):
    points = np.random.default_rng(0).normal(size=(60, 3)) * [5, 1, 1]
    np.save(tmp_path / "a.npy", points)
    predictor = Predictor(Classifier(), classes=tuple("abcdefghi"))
    (scene,) = showing.scenes_of_files(predictor, [tmp_path / "a.npy"])
    (best, first), (second, after) = predictor(points).top(2)
    assert scene.views[0].title == f"{best} {100 * first:.1f} %, {second} {100 * after:.1f} %"
    assert first > after


def test_files_are_turned_and_what_cannot_be_used_is_reported(tmp_path):
    upright = np.random.default_rng(0).normal(size=(50, 3))
    np.save(tmp_path / "a.npy", upright[:, [0, 2, 1]] * [1, -1, 1])
    (tmp_path / "b.npy").write_bytes(b"no")
    said = []
    (scene,) = showing.scenes_of_files(
        segmenter(), [tmp_path / "a.npy", tmp_path / "b.npy"], up="z", report=said.append
    )
    assert scene.name == "a.npy"
    assert np.allclose(scene.points, unit_sphere(upright), atol=1e-6)
    wanted = part_scene("x", upright, segmenter()(upright).labels, PARTS)
    assert np.array_equal(scene.views[0].colors, wanted.views[0].colors)
    (sentence,) = said
    assert "b.npy" in sentence
    (hat,) = showing.scenes_of_files(segmenter(), [tmp_path / "a.npy"], category="hat")
    assert parts_of(hat) == {"brim"}


def test_a_model_trained_with_another_axis_up_turns_files_once_and_shapes_of_its_data_set_never(tmp_path):
    upright = np.random.default_rng(0).normal(size=(50, 3))
    np.save(tmp_path / "a.npy", upright[:, [0, 2, 1]] * [1, -1, 1])
    (scene,) = showing.scenes_of_files(segmenter(up="z"), [tmp_path / "a.npy"])
    assert np.allclose(scene.points, unit_sphere(upright), atol=1e-6)
    wanted = part_scene("x", upright, segmenter()(upright).labels, PARTS)
    assert np.array_equal(scene.views[0].colors, wanted.views[0].colors)
    (shape,) = showing.scenes_of_split(trained_on_things(segmenter(up="z"), up="z"), "val", [0])
    (same,) = showing.scenes_of_split(trained_on_things(segmenter()), "val", [0])
    assert np.array_equal(shape.views[0].colors, same.views[0].colors)


def test_attention_is_that_of_the_latents_and_the_layer_asked_for(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(50, 3)))
    predictor, asked = segmenter(), []

    def attention(job, latents, *, layer):
        asked.append((list(latents), layer))
        return np.ones((len(latents), 50))

    monkeypatch.setattr(predictor, "attention", attention)
    trained_on_things(predictor)
    (of_file,) = showing.scenes_of_files(predictor, [tmp_path / "a.npy"], attention=[3, 1], layer=2)
    monkeypatch.setattr(predictor, "attention", lambda job, latents, *, layer: np.ones((len(latents), 40)))
    (of_split,) = showing.scenes_of_split(predictor, "val", [0], attention=[5])
    assert asked == [([3, 1], 2)]
    assert [view.title for view in of_file.views] == ["latent 3", "latent 1"]
    assert [view.title for view in of_split.views] == ["latent 5"]


def test_files_that_carry_labels_are_shown_beside_them(tmp_path, caplog):
    points = np.random.default_rng(0).normal(size=(50, 3))
    predicted = segmenter()(points).labels
    truth = np.where(points[:, 0] > 0, predicted, (predicted + 1) % 3)
    truth[:5] = -1
    np.savez(tmp_path / "a.npz", points=points, labels=truth)
    np.savez(tmp_path / "bad.npz", points=points, labels=truth + 3)
    np.savez(tmp_path / "half.npz", points=points, labels=truth + 0.5)
    files = [tmp_path / f"{name}.npz" for name in ("a", "bad", "half")]
    with caplog.at_level("WARNING"):
        scene, *others = showing.scenes_of_files(segmenter(), files)
    wanted = part_scene("a.npz", points, predicted, PARTS, truth)
    for view, same in zip(scene.views, wanted.views, strict=True):
        assert (view.title, view.legend) == (same.title, same.legend)
        assert np.array_equal(view.colors, same.colors)
    assert [[view.title for view in other.views] for other in others] == [["prediction"], ["prediction"]]
    bad, half = (message for message in caplog.messages if "truth" in message)
    assert "bad.npz: expected labels 0 to 2, the model's parts, got" in bad
    assert "half.npz: labels: expected whole numbers as labels, got" in half
    assert all(message.endswith("These labels are not shown as the truth.") for message in (bad, half))
    (only,) = showing.scenes_of_files(Predictor(Classifier(), classes=tuple("abcdefghi")), files[:1])
    assert len(only.views) == 1


def test_a_file_that_cannot_be_used_is_reported_once_and_not_for_its_labels(tmp_path, caplog):
    np.savez(tmp_path / "a.npz", points=np.full((4, 3), np.nan), labels=np.zeros(4))
    said = []
    with caplog.at_level("WARNING"):
        assert showing.scenes_of_files(segmenter(), [tmp_path / "a.npz"], report=said.append) == []
    assert len(said) == 1
    assert "NaN" in said[0]
    assert not caplog.messages
