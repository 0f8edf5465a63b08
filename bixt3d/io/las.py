"""Clouds of laser scanners: .las, and its compressed form .laz."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO

import numpy as np

from bixt3d.io.cloud import Cloud
from bixt3d.io.damage import Parsing
from bixt3d.io.labels import label_name, whole_labels

_INSTALL = "pip install 'laspy[lazrs]', or pip install -e '.[las]'"
_AT_ONCE = 1_000_000  # points whose whole records are in memory
_LEAST_RECORD = 54  # bytes of a record before the points


def read_las(path: Path, *, labels: bool = False) -> Cloud:
    """Read the points, with scale and offset applied in float64; all else that is known of a point is passed over.

    Where ``labels`` are asked for, they are an extra dimension of such a name, else the classification.

    Raises:
        RuntimeError: the file is truncated or damaged.
        ValueError: there are no points, or one is not finite.
        ImportError: laspy is not installed, or lazrs, which unpacks ``.laz``.
    """
    try:
        import laspy
        import lazrs  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Reading .las and .laz files needs laspy and lazrs: {_INSTALL}") from error
    wanted = laspy.DecompressionSelection.xy_returns_channel().decompress_z()
    name, found = None, None
    if labels:
        wanted = wanted.decompress_classification().decompress_all_extra_bytes()
    with Parsing(path, path.suffix), path.open("rb") as stream:
        _check_header(stream)
        # unpacked by one thread: several take memory for whatever a damaged file announces, and end the process
        # where there is not as much
        with laspy.open(
            stream,
            closefd=False,
            laz_backend=laspy.LazBackend.Lazrs,
            read_evlrs=False,
            decompression_selection=wanted,
        ) as file:
            _check_points(stream, file.header)
            points = np.empty((file.header.point_count, 3))
            if labels:
                name = label_name(file.header.point_format.dimension_names)
                found = np.empty(len(points))
            at = 0
            for chunk in file.chunk_iterator(_AT_ONCE):
                with np.errstate(over="ignore", invalid="ignore"):  # the cloud says what is not finite
                    for axis, values in enumerate((chunk.x, chunk.y, chunk.z)):
                        points[at : at + len(chunk), axis] = values
                if name is not None and found is not None:
                    found[at : at + len(chunk)] = chunk[name]
                at += len(chunk)
    if name is not None and found is not None:
        found = whole_labels(path, name, found, len(points))
    return Cloud(path, points, labels=found)


def _check_header(stream: IO[bytes]) -> None:
    """Refuse more records before the points than there is room for: laspy would look for each, for minutes."""
    header = stream.read(104)
    if len(header) < 104 or header[:4] != b"LASF":
        raise ValueError("expected a header that begins with LASF")
    # its length, where the points begin, and how many records stand between
    length, start, records = struct.unpack_from("<HII", header, 94)
    if length + _LEAST_RECORD * records > start or start > _size(stream):
        raise ValueError(f"it has no room for {records} records before its points, as its header announces")
    stream.seek(0)


def _check_points(stream: IO[bytes], header) -> None:
    """Compare with what is announced: laspy takes a file that ends early for a smaller one, lazrs memory for all."""
    start, size = header.offset_to_point_data, _size(stream)
    if not header.are_points_compressed:
        there = (size - start) // header.point_format.size
        if there < header.point_count:
            raise ValueError(f"expected {header.point_count} points by its header, got {there}")
    elif header.point_count:
        place = stream.tell()
        stream.seek(start)
        table = int.from_bytes(stream.read(8), "little", signed=True)
        if table == -1:  # not known when the writing began; then it stands at the end
            stream.seek(-8, os.SEEK_END)
            table = int.from_bytes(stream.read(8), "little", signed=True)
        if not start + 8 < table <= size - 8:
            raise ValueError("it ends before the table of its chunks")
        stream.seek(table + 4)
        chunks = int.from_bytes(stream.read(4), "little")
        if chunks > table - start:
            raise ValueError(f"it is too small for {chunks} chunks, as their table announces")
        stream.seek(place)


def _size(stream: IO[bytes]) -> int:
    return os.fstat(stream.fileno()).st_size
