"""Hold out a validation split from data sets that have none."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np

from bixt3d.datasets.clouds import PointClouds

SPLITS = ("train", "val", "test")  # never reorder: Shapes seeds its clouds by the position


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into a kept and a held-out part, class by class.

    Of a class with ``m`` members, ``round(fraction * m)`` are held out: at least 1 and at most ``m - 1`` if ``m > 1``,
    none if ``m`` is 1. A SHA-256 hash of (seed, label, rank in the class) decides which, so the split does not depend
    on any library's random number generator or on the platform.

    Args:
        labels: ``(n,)`` integers.
        fraction: share to hold out, in [0, 1); 0 holds out nothing.
        seed: selects which members are held out.

    Returns:
        ``(kept, held_out)``: sorted int64 indices that together are ``0 .. n - 1``.

    Raises:
        ValueError: ``fraction`` is outside [0, 1).
    """
    check_fraction(fraction)
    held_out = np.zeros(len(labels), dtype=bool)
    if fraction > 0:
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            if len(members) == 1:
                continue
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            ranks = sorted(range(len(members)), key=partial(_key, seed, int(label)))
            held_out[members[ranks[:count]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def hold_out(clouds: PointClouds, split: str, fraction: float, seed: int) -> PointClouds:
    """Return the ``"train"`` or the ``"val"`` part of the official train split; together they are all of it.

    Raises:
        ValueError: the part is empty, or ``fraction`` is outside [0, 1).
    """
    kept, held_out = stratified_split(clouds.labels, fraction, seed)
    index = kept if split == "train" else held_out
    if len(index) == 0:
        raise ValueError(
            f"split: {split!r} is empty, since no class has two clouds to divide; add clouds or set "
            "val_fraction=0."
        )
    return clouds if len(index) == len(clouds) else clouds.select(index)


def check_fraction(fraction: float) -> None:
    """Raise ValueError if the share to hold out is outside [0, 1)."""
    if not 0 <= fraction < 1:
        raise ValueError(f"val_fraction: expected a number in [0, 1), got {fraction}.")


def check_split(split: str, val_fraction: float = 1.0) -> None:
    """Raise ValueError if the split is unknown, or is ``"val"`` although nothing is held out."""
    if split not in SPLITS:
        raise ValueError(f"split: unknown value {split!r}, expected one of {', '.join(sorted(SPLITS))}.")
    if split == "val" and val_fraction == 0:
        raise ValueError(
            "split: 'val' is empty with val_fraction=0; set val_fraction above 0 to hold some out."
        )


def _key(seed: int, label: int, rank: int) -> bytes:
    return hashlib.sha256(f"{seed}/{label}/{rank}".encode()).digest()
