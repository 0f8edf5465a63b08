"""From a predictor and clouds to scenes: what the viewer's command shows."""

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
    """Predict files and make a scene of each that can be used, beside its true parts where the file has part labels.

    Args:
        predictor: of parts, or of classes (which shows the class, or attention).
        files: as :func:`bixt3d.io.finding.find_files` lists them.
        category: class of all clouds, where the model asks for it.
        attention: numbers of latents whose attention is shown in place of the parts.
        layer: layer of that attention.
        up: the axis that is up in the files; model and pictures see it as y. None for that of training.
        samples: points to draw from a mesh; None for the reader's default.
        report: called with what is wrong with each of the other files, one sentence.

    Raises:
        ValueError: the model has no such category, latent or layer.
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
    """Predict shapes of the data set that a model was trained on, beside their true parts.

    The category given to the model is the true one, unless ``category`` or the predictor's classifier says another.

    Args:
        predictor, category, attention, layer: see :func:`scenes_of_files`.
        split: ``"train"``, ``"val"`` or ``"test"``.
        index: which shapes, from 0; None for the first six.
        data_root: folder of the data set, where it is not that of the config.

    Raises:
        ValueError: there is no such shape, or the data set has other classes or parts than the model.
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
    """Read a cloud, with its labels where they can be those of such parts."""
    if not parts or file.suffix.lower() in (".las", ".laz"):  # whose points all have a class, none of parts
        return read_points(file, num_samples=samples, seed=seed)
    try:
        cloud = read_points(file, num_samples=samples, seed=seed, labels=True)
        labels, reason = cloud.labels, ""
        if labels is not None and (outside := (labels < UNLABELLED) | (labels >= len(parts))).any():
            wanted = f"0 to {len(parts) - 1}, the model's parts"
            reason = f"{file}: expected labels {wanted}, got {labels[outside][0]}."
    except ValueError as error:  # of its labels, or of its points, which then fail again
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
