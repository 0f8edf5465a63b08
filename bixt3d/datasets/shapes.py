"""A procedural data set of everyday objects with exact class and part labels and nothing to download."""

from __future__ import annotations

import math
import operator

import numpy as np

from bixt3d.datasets.clouds import PointClouds
from bixt3d.datasets.shape_assembly import Assembly, rotation
from bixt3d.datasets.shape_categories import CATEGORIES
from bixt3d.datasets.split import SPLITS
from bixt3d.io import unit_sphere

_MIN_POINTS = 16


class Shapes:
    """Generate labelled clouds of objects of twelve categories, built from simple surfaces.

    Cloud i of a split is drawn from ``SeedSequence((seed, split, i))`` and has class i modulo the number of classes.
    It does not depend on the number of clouds, and the class sizes differ by at most one. The shape of an object is
    drawn first, so the number of points, normals and noise do not change it. Points are uniform by area over the
    surfaces of all pieces, including surfaces inside another piece, and each part that is present has at least eight
    points (fewer in clouds of fewer than 64). Their order is random, so the first n points are a fair subset. Each
    object is rotated by a random angle about the up axis y, centred on the mean of its points and scaled so that the
    farthest point is at distance 1, as in ModelNet40.

    Args:
        num_train: number of clouds in the split "train".
        num_val: number of clouds in the split "val".
        num_test: number of clouds in the split "test".
        num_points: points per cloud that the model will use, at least 16.
        stored_points: points stored per cloud, at least ``num_points``, so that training can draw subsets. None
            stores ``num_points``.
        normals: append outward unit normals to xyz.
        noise: standard deviation of the Gaussian noise on each coordinate, relative to the radius of the object.
        seed: 0 or more. Another seed gives another data set.

    Raises:
        ValueError: a count is too small, or ``noise`` or ``seed`` is negative or not finite.
        TypeError: a count or the seed is not an integer.
    """

    def __init__(
        self,
        *,
        num_train: int = 2000,
        num_val: int = 200,
        num_test: int = 400,
        num_points: int = 1024,
        stored_points: int | None = None,
        normals: bool = False,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        counts = {"train": num_train, "val": num_val, "test": num_test}
        self._counts = {split: _integer(f"num_{split}", n, 1) for split, n in counts.items()}
        self.num_points = _integer("num_points", num_points, _MIN_POINTS)
        self.stored_points = self.num_points
        if stored_points is not None:
            self.stored_points = _integer("stored_points", stored_points, _MIN_POINTS)
        if self.stored_points < self.num_points:
            raise ValueError(
                f"stored_points: got {self.stored_points} for num_points {self.num_points}, expected "
                "at least as many; raise stored_points or lower num_points."
            )
        if not (math.isfinite(noise) and noise >= 0.0):
            raise ValueError(f"noise: got {noise}, expected a finite number >= 0; use 0 for none.")
        self.normals = normals
        self.noise = noise
        self.seed = _integer("seed", seed, 0)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in label order (alphabetical)."""
        return tuple(CATEGORIES)

    @property
    def parts(self) -> tuple[str, ...]:
        """Part names ``"class/part"`` in label order; the parts of a class are consecutive."""
        return tuple(f"{name}/{part}" for name, category in CATEGORIES.items() for part in category.parts)

    def load(self, split: str) -> PointClouds:
        """Generate the clouds of one split, in about a millisecond per cloud.

        Args:
            split: "train", "val" or "test".

        Returns:
            The clouds, in memory: points ``(n, stored_points, 3)`` float32, or ``(n, stored_points, 6)`` with
            normals; class labels ``(n,)`` and part labels ``(n, stored_points)``, int64. The unit of the coordinates
            is the radius of the object.

        Raises:
            ValueError: the split is unknown.
        """
        if split not in SPLITS:
            raise ValueError(f"split: got {split!r}, expected one of {sorted(SPLITS)}.")
        n = self._counts[split]
        points = np.empty((n, self.stored_points, 6 if self.normals else 3), dtype=np.float32)
        part_labels = np.empty((n, self.stored_points), dtype=np.int64)
        labels = np.arange(n, dtype=np.int64) % len(CATEGORIES)
        names = list(CATEGORIES)
        first_part = np.cumsum([0, *(len(category.parts) for category in CATEGORIES.values())])
        for index, label in enumerate(labels):
            rng = np.random.default_rng(np.random.SeedSequence((self.seed, SPLITS.index(split), index)))
            xyz, direction, part = self._cloud(rng, names[label])
            points[index, :, :3] = xyz
            if self.normals:
                points[index, :, 3:] = direction
            part_labels[index] = first_part[label] + part
        return PointClouds(
            points=points,
            labels=labels,
            classes=self.classes,
            names=tuple(f"shapes/{split}/{names[label]}_{i:05d}" for i, label in enumerate(labels)),
            part_labels=part_labels,
            parts=self.parts,
        )

    def _cloud(self, rng: np.random.Generator, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return points ``(N, 3)``, normals ``(N, 3)`` and parts ``(N,)`` of one object."""
        category = CATEGORIES[name]
        turn = rotation("y", rng.uniform(0.0, 360.0))
        assembly = Assembly(category.parts)
        category.build(rng, assembly)
        points, normals, part = assembly.sample(rng, self.stored_points)
        points = unit_sphere(points @ turn.T)
        if self.noise > 0.0:
            points = unit_sphere(points + self.noise * rng.standard_normal(points.shape))
        return points, normals @ turn.T, part


def _integer(argument: str, value: int, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{argument}: got {value!r} of type {type(value).__name__}, expected an integer; round it."
        ) from None
    if number < least:
        raise ValueError(f"{argument}: got {number}, expected at least {least}; use a larger value.")
    return number
