"""Read files of the Point Cloud Library (.pcd)."""

from __future__ import annotations

import io
import logging
import re
import struct
from pathlib import Path

import numpy as np

from bixt3d.io.cloud import Cloud, unit_normals
from bixt3d.io.damage import Parsing
from bixt3d.io.labels import label_name, whole_labels

logger = logging.getLogger(__name__)

_MOST_A_BYTE = 88  # one-byte numbers per byte of the file; three bytes of LZF decompress to at most 264


def read_pcd(path: Path, *, labels: bool = False) -> Cloud:
    """Read an ascii, binary or binary_compressed file; the fields ``normal_x`` and so on become normals.

    Organised clouds have NaN where the sensor got no return. These points are dropped, with a warning.

    Raises:
        ImportError: pypcd4 is not installed.
        RuntimeError: the file is truncated or damaged.
        ValueError: x, y or z is missing, there are no points, all points are NaN, a coordinate is infinite, or a
            label is not a whole number.
    """
    try:
        from pypcd4 import PointCloud
    except ImportError as error:
        raise ImportError("Reading .pcd files needs pypcd4: pip install pypcd4") from error
    with Parsing(path, "PCD"):
        _check_size(path)
        content = _with_count(path.read_bytes())
        cloud = PointCloud.from_fileobj(io.BufferedReader(io.BytesIO(content)))
        _check_unpacked(content, cloud.metadata.points * cloud.pc_data.dtype.itemsize)
    missing = {"x", "y", "z"} - set(cloud.fields)
    if missing:
        raise ValueError(f"{path}: expected fields x, y and z, got {', '.join(cloud.fields)[:300]}.")
    points = _columns(cloud, ("x", "y", "z"))
    if len(points) != cloud.metadata.points:
        raise RuntimeError(
            f"{path}: expected {cloud.metadata.points} points by its header, got {len(points)}; "
            "it may be truncated."
        )
    there = ~np.isnan(points).any(axis=1)
    if not there.all():
        if not there.any():
            raise ValueError(f"{path}: all {len(points)} points are NaN; expected at least one that is not.")
        logger.warning(
            "%s: left out %d of %d points, which are NaN (missing returns)", path, (~there).sum(), len(points)
        )
    normals = None
    if {"normal_x", "normal_y", "normal_z"} <= set(cloud.fields):
        normals = unit_normals(_columns(cloud, ("normal_x", "normal_y", "normal_z"))[there])
    name = label_name(cloud.fields) if labels else None
    found = None if name is None else whole_labels(path, name, np.asarray(cloud.pc_data[name]), len(points))
    return Cloud(path, points[there], normals, labels=None if found is None else found[there])


def _with_count(content: bytes) -> bytes:
    """Add the line COUNT to a header without it, which is optional if each field is a single number."""
    header, data, body = content.partition(b"\nDATA")
    fields = re.search(rb"(?mi)^[ \t]*FIELDS[ \t]+(.*)$", header)
    if fields is None or re.search(rb"(?mi)^[ \t]*COUNT", header):
        return content
    return header + b"\nCOUNT" + b" 1" * len(fields[1].split()) + data + body


def _check_unpacked(content: bytes, expected: int) -> None:
    """Compare the decompressed size with the header; pypcd4 would broadcast a single remaining number."""
    line = re.search(rb"\nDATA[ \t]+binary_?s?compressed[^\n]*\n", content)
    if line and expected and (size := struct.unpack_from("<I", content, line.end() + 4)[0]) != expected:
        raise ValueError(f"it unpacks to {size} bytes, but its header announces {expected}")


def _check_size(path: Path) -> None:
    """Reject headers with more numbers than the file can hold; pypcd4 allocates memory for all before reading."""
    with path.open("rb") as file:
        header = file.read(1 << 16).partition(b"\nDATA")[0]

    def most(key: bytes) -> int:
        lines = re.findall(rb"(?mi)^[ \t]*" + key + rb"[ \t]+(.*)$", header)
        return max((sum(map(_whole, line.split())) for line in lines), default=1)

    points, numbers = most(b"POINTS"), most(b"COUNT")
    if max(points, 1) * numbers > _MOST_A_BYTE * path.stat().st_size:
        raise ValueError(f"it is too small for {points} points of {numbers} numbers, as its header announces")


def _whole(word: bytes) -> int:
    try:
        return int(word)
    except ValueError:
        return 0


def _columns(cloud, fields: tuple[str, ...]) -> np.ndarray:
    return np.stack([cloud.pc_data[field].astype(np.float64).reshape(-1) for field in fields], axis=1)
