"""Predict clouds and make scenes of the results for the viewer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..checkpoint import check_labels
from ..config import build
from ..io import UNLABELLED, Cloud, read_points
from ..viewer.scene import Scene, attention_scene, part_scene, plain_scene
from .batch_prediction import UNUSABLE, chosen_up, warn_of_doubts, what_is_wrong
from .prediction import Job
from .predictor import Predictor

logger = logging.getLogger(__name__)

FIRST = 6


def scenes_of_files(
    predictor: Predictor,
    files: Sequence[Path],
    *,
    category: str | None = None,
    attention: Sequence[int] | None = None,
    layer: int = -1,
    up: str | None = None,
    samples: int | None = None,
    report: Callable[[str], None] = print,
) -> list[Scene]:
    """Predict files and make a scene of each, with its true parts if the file has part labels.

    Files that cannot be used are reported and skipped.

    Args:
        predictor: predictor of parts, or of classes, for which the scene shows the class.
        files: as returned by :func:`bixt3d.io.finding.find_files`.
        category: category of all clouds, if the model needs it.
        attention: indices of latents whose attention is shown instead of the prediction.
        layer: layer of the attention.
        up: up axis of the files, turned to y for the model and pictures. None for that of training.
        samples: number of points to draw from a mesh; None for the reader's default.
        report: called with the message of each error, one sentence.

    Raises:
        ValueError: the category, a latent or the layer does not exist in the model.
    """
    predictor.check_category(category)
    up = chosen_up(predictor, up)
    scenes = []
    for file in files:
        try:
            labelled = predictor.parts if attention is None else ()
            cloud = _read(file, samples, predictor.seed, labelled).turned(up)
            job = predictor.prepare(cloud, category=category, up="y", whole=attention is not None)
        except UNUSABLE as error:
            report(what_is_wrong(file, error))
            continue
        warn_of_doubts(cloud, predictor.num_points)
        scenes.append(_scene(predictor, file.name, cloud.points, job, cloud.labels, attention, layer))
    return scenes


def scenes_of_split(
    predictor: Predictor,
    split: str,
    index: Sequence[int] | None = None,
    data_root: str | None = None,
    *,
    category: str | None = None,
    attention: Sequence[int] | None = None,
    layer: int = -1,
) -> list[Scene]:
    """Predict shapes of the data set that the model was trained on, and make scenes with their true parts.

    The model gets the true category, unless ``category`` is given or the predictor has a classifier.

    Args:
        predictor, category, attention, layer: see :func:`scenes_of_files`.
        split: ``"train"``, ``"val"`` or ``"test"``.
        index: indices of the shapes, from 0; None for the first six.
        data_root: folder of the data set, if not that of the config.

    Raises:
        ValueError: a shape does not exist, or the data set has other classes or parts than the model.
    """
    predictor.check_category(category)
    node = dict(predictor.config["data"])
    if data_root is not None:
        node["root"] = data_root
    clouds = build(node, "data").load(split)
    check_labels("the model", "classes", predictor.classes, clouds.classes)
    if predictor.parts:
        check_labels("the model", "parts", predictor.parts, clouds.parts)
    scenes = []
    for i in range(min(FIRST, len(clouds))) if index is None else index:
        if not 0 <= i < len(clouds):
            raise ValueError(f"index: the {split} split has shapes 0 to {len(clouds) - 1}, got {i}.")
        own = clouds.classes[clouds.labels[i]] if predictor.parts and predictor.classifier is None else None
        truth = None if clouds.part_labels is None else np.asarray(clouds.part_labels[i])
        points = np.asarray(clouds.points[i])
        job = predictor.prepare(points, category=category or own, up="y", whole=attention is not None)
        scenes.append(_scene(predictor, clouds.names[i], points[:, :3], job, truth, attention, layer))
    return scenes


def _read(file: Path, samples: int | None, seed: int, parts: Sequence[str]) -> Cloud:
    """Read a cloud, with its labels if they are valid indices into ``parts``."""
    if not parts or file.suffix.lower() in (".las", ".laz"):  # their labels are not parts
        return read_points(file, num_samples=samples, seed=seed)
    try:
        cloud = read_points(file, num_samples=samples, seed=seed, labels=True)
        labels, reason = cloud.labels, ""
        if labels is not None and (outside := (labels < UNLABELLED) | (labels >= len(parts))).any():
            wanted = f"0 to {len(parts) - 1}, the model's parts"
            reason = f"{file}: expected labels {wanted}, got {labels[outside][0]}."
    except ValueError as error:  # from the labels, or from the points, which then fail again below
        cloud = read_points(file, num_samples=samples, seed=seed)
        reason = str(error)
    if reason:
        logger.warning("%s These labels are not shown as the truth.", reason)
        cloud = replace(cloud, labels=None)
    return cloud


def _scene(
    predictor: Predictor,
    name: str,
    points: np.ndarray,
    job: Job,
    truth: np.ndarray | None,
    attention: Sequence[int] | None,
    layer: int,
) -> Scene:
    if attention is not None:
        weights = predictor.attention(job, attention, layer=layer)
        return attention_scene(name, points, weights, attention)
    (prediction,) = predictor.run([job])
    if predictor.parts:
        return part_scene(name, points, prediction.labels, prediction.names, truth)
    best = ", ".join(f"{one} {100 * probability:.1f} %" for one, probability in prediction.top(2))
    return plain_scene(name, points, best)
