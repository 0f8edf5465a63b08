"""Predict the class or the parts of point clouds of any size, in any unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..io import Cloud, check_axis, unit_sphere
from ..ops import knn
from .compiled import compile_for_prediction
from .normals import normals_of
from .prediction import Job, Prediction, as_cloud, batches, check_classifier, cut, each_cloud, in_precision
from .strays import drop_strays


class Predictor:
    """Run a model on point clouds of any size, in any unit.

    Each cloud is centred and scaled to the unit sphere as a whole, in float64. If it has fewer points than the model's
    grouping needs, points are repeated. If it has more points than the model was trained on, a seeded random
    permutation splits it into interleaved subsets of that size. A classifier sees only the first subset. A segmenter
    sees all of them, so every point is labelled, at the density of training. Time is then linear in the number of
    points, and the forward passes hold a fixed number of points in memory.

    Args:
        model: ``model(points (B, N, C)) -> logits (B, classes)``, or for parts
            ``model(points, category (B,) or None) -> logits (B, N, parts)``. It needs the attributes ``in_channels``
            and ``min_points``. It is moved to ``device`` and set to evaluation mode, and stays so: call
            ``model.train()`` before you train it again, and ``model.eval()`` before you predict again.
        classes: class names in label order.
        parts: part names ``"class/part"`` in label order; empty for a classifier.
        num_points: number of points per cloud in training.
        config: config of the run that trained the model. It is stored as an attribute and not used here.
        takes_category: whether the category is an input of the model. If not, it only restricts the predicted parts.
        classifier: predicts the category of clouds given without one.
        batch_size: number of forward passes per batch.
        seed: seed for subsampling. The same cloud and seed give the same labels.
        device: device that the model runs on.
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``. :meth:`attention` always uses float32.
        compile: whether to compile the model first, see :func:`bixt3d.inference.compiled.compile_for_prediction`.
        drop_strays: whether to leave out stray points (:func:`bixt3d.inference.strays.find_strays`). A segmenter gives
            them the part of the nearest remaining point.
        up: default up axis of the clouds. They are turned so that y is up, as in training.

    Raises:
        ValueError: a number is out of range, the axis is unknown, or the classifier shares no class with the model,
            predicts parts itself, or is given to a model that predicts classes.
    """

    def __init__(
        self,
        model: Any,
        *,
        classes: Sequence[str],
        parts: Sequence[str] = (),
        num_points: int = 1024,
        config: Mapping[str, Any] | None = None,
        takes_category: bool = False,
        classifier: Predictor | None = None,
        batch_size: int = 16,
        seed: int = 0,
        device: str | torch.device = "cpu",
        precision: str = "32-true",
        compile: bool = False,
        drop_strays: bool = False,
        up: str = "y",
    ) -> None:
        check_axis(up)
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}.")
        if seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {seed}.")
        if classifier is not None:
            check_classifier(classifier, classes, parts)
        self.device = torch.device(device)
        self.model = model.eval().to(self.device)
        run = compile_for_prediction(self.model) if compile else self.model
        self._run = in_precision(run, precision, self.device)
        self.classes: tuple[str, ...] = tuple(classes)
        self.parts: tuple[str, ...] = tuple(parts)
        self.min_points = int(self.model.min_points)
        self.num_points = max(num_points, self.min_points)
        self.config: Mapping[str, Any] = config or {}
        self.takes_category = takes_category
        self.classifier = classifier
        self.batch_size, self.seed, self.drop_strays, self.up = batch_size, seed, drop_strays, up
        owners = [name.rpartition("/")[0] for name in self.parts]
        # (classes, parts): which parts belong to which class
        self._belongs = torch.tensor(
            [[owner == name for owner in owners] for name in self.classes], dtype=torch.bool
        ).to(self.device)

    def __call__(
        self,
        points: Any,
        *,
        normals: Any = None,
        category: str | Sequence[str | None] | None = None,
        up: str | None = None,
    ) -> Any:
        """Predict the class, or the part of each point, of one cloud or of several in batches.

        Args:
            points: one cloud: a :class:`~bixt3d.io.Cloud`, or a real array ``(N, 3)``, or ``(N, 6)`` with normals, with
                N at least 1, in any unit. Or several clouds: a list of these, or an array ``(B, N, 3 or 6)``.
            normals: ``(N, 3)``, not necessarily of unit length, if ``points`` has none. If the model needs normals and
                they are missing, or one of them has no direction, all are estimated.
            category: class name of the cloud, for a segmenter. For several clouds, pass ``normals`` and ``category`` as
                lists with one entry per cloud. A single name applies to all of them.
            up: up axis of the cloud; None for that of the predictor.

        Returns:
            A :class:`~bixt3d.inference.prediction.Prediction`, or a list of them for several clouds.

        Raises:
            ValueError: a cloud is empty, has NaN, or has several points that all coincide; the category is unknown,
                missing where the model needs it, or given to a classifier; or the axis is unknown.
            TypeError: the points are not real numbers.
            ImportError: normals have to be estimated and open3d is not installed.
        """
        clouds = each_cloud(points, normals, category)
        if clouds is None:
            return self.run([self.prepare(points, normals=normals, category=category, up=up)])[0]
        return self.run([self.prepare(cloud, category=name, up=up) for cloud, name in clouds])

    def prepare(
        self,
        points: Any,
        *,
        normals: Any = None,
        category: Any = None,
        up: str | None = None,
        whole: bool = False,
    ) -> Job:
        """Check and normalise one cloud for :meth:`run`.

        Arguments and errors are those of a call. With ``whole``, a classifier also keeps all points: :meth:`attention`
        then covers them, and :meth:`run` averages its probabilities over the subsets.
        """
        cloud = as_cloud(points, normals).turned(up or self.up)
        index, first = self._category(cloud, category)
        cloud, speakers = drop_strays(cloud) if self.drop_strays else (cloud, None)
        strays = 0 if speakers is None else len(speakers) - len(cloud)
        xyz = unit_sphere(cloud.points)
        whole = whole or bool(self.parts)
        pieces = cut(len(xyz), self.num_points, self.min_points, seed=self.seed, all_points=whole)
        if not whole and len(xyz) > self.num_points:
            # not scaled again, since training and evaluation also subsample clouds that were normalised as a whole
            kept = pieces[0]
            xyz, pieces, cloud = xyz[kept], np.arange(len(kept))[None], cloud.subset(kept)
        if self.model.in_channels != 3:
            xyz = np.concatenate([xyz, normals_of(cloud).astype(np.float32)], axis=1)
        return Job(xyz, pieces, index, first, speakers, strays)

    def run(self, jobs: Sequence[Job]) -> list[Prediction]:
        """Predict several prepared clouds. Each batch holds forward passes with the same number of points."""
        jobs = self._with_category(jobs)
        found = [
            np.zeros((len(job.features), len(self.parts)) if self.parts else (len(self.classes),), np.float32)
            for job in jobs
        ]
        with torch.inference_mode():
            for batch in batches(jobs, self.batch_size):
                points, category = self._tensors(jobs, batch)
                rows = self._probabilities(points, category).cpu().numpy()
                for (j, piece), row in zip(batch, rows, strict=True):
                    if self.parts:
                        found[j][jobs[j].pieces[piece]] = row
                    else:
                        found[j] += row / len(jobs[j].pieces)
        return [self._prediction(job, rows) for job, rows in zip(jobs, found, strict=True)]

    def attention(
        self,
        points: Any,
        latents: Sequence[int],
        *,
        layer: int = -1,
        category: str | None = None,
        up: str | None = None,
    ) -> np.ndarray:
        """Return how much latents attend to each point: the softmax over tokens, averaged over heads.

        If the layer has fewer tokens than there are points, each point takes the weight of its nearest token. If the
        cloud is split into K subsets, the weights of each subset are divided by K.

        Args:
            points: one cloud, as in a call, or the result of :meth:`prepare` with ``whole=True``.
            latents: indices of the latents, from 0.
            layer: index of the layer, from 0. A negative index counts from the last layer.
            category, up: as in a call.

        Returns:
            ``(len(latents), N)`` float32.

        Raises:
            ValueError: the model has no latents, a latent or the layer does not exist, or a call would raise it.
        """
        if not hasattr(self.model, "forward_features"):
            name = type(self.model).__name__
            raise ValueError(f"attention: {name} has no latents; expected a model with cross-attention.")
        if not isinstance(points, Job):
            points = self.prepare(points, category=category, up=up, whole=True)
        (job,) = self._with_category([points])
        weights = np.empty((len(latents), len(job.features)), dtype=np.float32)
        with torch.inference_mode():
            for piece, index in enumerate(job.pieces):
                batch, category_index = self._tensors([job], [(0, piece)])
                arguments = (batch, category_index) if self.takes_category else (batch,)
                layers = self.model.forward_features(*arguments, return_attention=True)[-1]
                if not -len(layers) <= layer < len(layers):
                    raise ValueError(f"layer: the model has layers 0 to {len(layers) - 1}, got {layer}.")
                maps, centers = layers[layer]
                heads = maps.latents_from_tokens.mean(dim=1)[0]
                outside = [latent for latent in latents if not 0 <= latent < len(heads)]
                if outside:
                    raise ValueError(
                        f"latent: the model has latents 0 to {len(heads) - 1}, got {outside[0]}."
                    )
                picked = heads[list(latents)]
                if centers.shape[1] != batch.shape[1] or not torch.equal(centers, batch[..., :3]):
                    picked = picked[:, knn(batch[..., :3].contiguous(), centers, 1)[1][0, :, 0]]
                weights[:, index] = picked.float().cpu().numpy() / len(job.pieces)
        return weights if job.speakers is None else weights[:, job.speakers]

    def check_category(self, category: str | None) -> None:
        """Raise a ValueError if the category is unknown, or given to a classifier. None is valid."""
        if category is not None and not self.parts:
            raise ValueError("category: this model is a classifier and needs none; leave it out.")
        if category is not None and category not in self.classes:
            raise ValueError(
                f"category: unknown value {category!r}, expected one of {', '.join(sorted(self.classes))}."
            )

    def _category(self, cloud: Cloud, category: str | None) -> tuple[int | None, Job | None]:
        self.check_category(category)
        if not self.parts:
            return None, None
        if category is not None:
            return self.classes.index(category), None
        if len(self.classes) == 1:
            return 0, None
        if self.classifier is not None:
            return None, self.classifier.prepare(cloud, up="y")  # the cloud has been turned already
        if self.takes_category:
            raise ValueError(
                f"{cloud.path}: the model needs the category of the cloud; give --category NAME "
                f"(category=NAME in Python), one of {', '.join(sorted(self.classes))}, or --classifier CHECKPOINT."
            )
        return None, None

    def _with_category(self, jobs: Sequence[Job]) -> list[Job]:
        """Fill in missing categories with the predictions of the classifier."""
        jobs = list(jobs)
        waiting = {j: job.classify_first for j, job in enumerate(jobs) if job.classify_first is not None}
        if not waiting or self.classifier is None:
            return jobs
        for j, prediction in zip(waiting, self.classifier.run(list(waiting.values())), strict=True):
            # the most probable class that this model knows
            known = next(name for name, _ in prediction.top(len(prediction.names)) if name in self.classes)
            jobs[j] = replace(jobs[j], category=self.classes.index(known), classify_first=None)
        return jobs

    def _tensors(self, jobs: Sequence[Job], batch: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor | None]:
        """Return points ``(B, n, C)`` and, for a segmenter, categories ``(B,)``, -1 if unknown."""
        points = torch.from_numpy(np.stack([jobs[j].features[jobs[j].pieces[k]] for j, k in batch]))
        category = None
        if self.parts:
            given = (jobs[j].category for j, _ in batch)
            category = torch.tensor([-1 if c is None else c for c in given], device=self.device)
        return points.to(self.device), category

    def _probabilities(self, points: Tensor, category: Tensor | None) -> Tensor:
        if category is None:
            return self._run(points).float().softmax(dim=-1)
        logits = self._run(points, category if self.takes_category else None).float()
        allowed = self._belongs[category.clamp(min=0)] | (category < 0)[:, None]
        return logits.masked_fill(~allowed[:, None], -torch.inf).softmax(dim=-1)

    def _prediction(self, job: Job, probabilities: np.ndarray) -> Prediction:
        category = None if job.category is None else self.classes[job.category]
        if self.parts and job.speakers is not None:
            probabilities = probabilities[job.speakers]
        labels = np.asarray(probabilities.argmax(axis=-1), dtype=np.int64)
        return Prediction(labels, probabilities, self.parts or self.classes, category)
