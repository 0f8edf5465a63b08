"""Write clouds: coloured .ply and .npz, each file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from bixt3d.writing import atomic_file


def write_ply(
    path: str | os.PathLike[str], points: np.ndarray, colors: np.ndarray, labels: np.ndarray | None = None
) -> None:
    """Write a coloured cloud as binary .ply, the form that every common viewer opens.

    Coordinates are stored as float where that loses nothing, else as double: those of a map, such as UTM,
    would move by up to half a metre in float.

    Args:
        path: the file.
        points: ``(N, 3)`` real, in any unit.
        colors: ``(N, 3)`` uint8, red, green, blue.
        labels: ``(N,)`` integers, stored as the property ``label``; None for none.

    Raises:
        ValueError: a shape does not fit.
        TypeError: the colours are not uint8.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points: expected shape (N, 3), got {points.shape}.")
    if colors.dtype != np.uint8:
        raise TypeError(f"colors: expected dtype uint8 with values 0 to 255, got {colors.dtype}.")
    if colors.shape != points.shape:
        raise ValueError(f"colors: expected shape {points.shape}, one colour per point, got {colors.shape}.")
    if labels is not None and labels.shape != points.shape[:1]:
        raise ValueError(f"labels: expected shape {points.shape[:1]}, one per point, got {labels.shape}.")
    single = points.astype(np.float32)
    exact = np.array_equal(single.astype(np.float64), points.astype(np.float64))
    kind, real = ("float", "<f4") if exact else ("double", "<f8")
    fields: list[tuple[str, str]] = [(axis, real) for axis in "xyz"]
    fields += [(channel, "u1") for channel in ("red", "green", "blue")]
    properties = [f"property {kind} {axis}" for axis in "xyz"]
    properties += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    if labels is not None:
        fields.append(("label", "<i4"))
        properties.append("property int label")
    rows = np.empty(len(points), dtype=fields)
    for i, axis in enumerate("xyz"):
        rows[axis] = points[:, i]
    for i, channel in enumerate(("red", "green", "blue")):
        rows[channel] = colors[:, i]
    if labels is not None:
        rows["label"] = labels
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *properties]
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join(header) + "\nend_header\n").encode("ascii"))
        rows.tofile(file)


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as .npz; with ``points`` among them, :func:`bixt3d.io.read_points` reads it."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes them for its own options
