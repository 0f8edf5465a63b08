"""Read clouds of laser scanners: .las, and its compressed form .laz."""

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
_AT_ONCE = 1_000_000  # points per chunk, whose whole records are in memory
_LEAST_RECORD = 54  # bytes of a record before the points


def read_las(path: Path, *, labels: bool = False) -> Cloud:
    """Read the points, with scale and offset applied in float64; other properties are ignored.

    If ``labels`` is set, labels are read from an extra dimension with a name of a label column
    (:data:`~bixt3d.io.labels.LABEL_NAMES`), or otherwise from the classification.

    Raises:
        RuntimeError: the file is truncated or damaged.
        ValueError: there are no points, a coordinate is not finite, or a label is not a whole number.
        ImportError: laspy, or lazrs, which decompresses ``.laz``, is not installed.
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
        # single-threaded: the parallel backend allocates as much memory as a damaged file announces, and aborts the
        # process if there is not enough
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
                with np.errstate(over="ignore", invalid="ignore"):  # Cloud rejects what is not finite
                    for axis, values in enumerate((chunk.x, chunk.y, chunk.z)):
                        points[at : at + len(chunk), axis] = values
                if name is not None and found is not None:
                    found[at : at + len(chunk)] = chunk[name]
                at += len(chunk)
    if name is not None and found is not None:
        found = whole_labels(path, name, found, len(points))
    return Cloud(path, points, labels=found)


def _check_header(stream: IO[bytes]) -> None:
    """Reject headers with more records before the points than fit; laspy would search for each, for minutes."""
    header = stream.read(104)
    if len(header) < 104 or header[:4] != b"LASF":
        raise ValueError("expected a header that begins with LASF")
    # length of the header, offset of the points, and number of records in between
    length, start, records = struct.unpack_from("<HII", header, 94)
    if length + _LEAST_RECORD * records > start or start > _size(stream):
        raise ValueError(f"it has no room for {records} records before its points, as its header announces")
    stream.seek(0)


def _check_points(stream: IO[bytes], header) -> None:
    """Check that the file is large enough for its points.

    Otherwise laspy would accept a truncated file as a smaller one, and lazrs would allocate memory for all points.
    """
    start, size = header.offset_to_point_data, _size(stream)
    if not header.are_points_compressed:
        there = (size - start) // header.point_format.size
        if there < header.point_count:
            raise ValueError(f"expected {header.point_count} points by its header, got {there}")
    elif header.point_count:
        place = stream.tell()
        stream.seek(start)
        table = int.from_bytes(stream.read(8), "little", signed=True)
        if table == -1:  # unknown when writing began; it is then at the end of the file
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
