"""Read the Stanford polygon format (.ply), ascii or binary."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bixt3d.io.cloud import Cloud, unit_normals
from bixt3d.io.damage import Parsing
from bixt3d.io.labels import label_name, whole_labels
from bixt3d.io.mesh import Mesh

# name in a header -> type code of struct and numpy
TYPES = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f"}
TYPES |= {"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I"}
TYPES |= {"double": "d", "float32": "f", "float64": "d", "float16": "e", "int64": "q", "uint64": "Q"}
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}

_Property = tuple[str, str, str]  # name, type, and for a list the type of its length
_Columns = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> all values, and their number in each row


def read_ply(path: Path, *, labels: bool = False) -> Cloud | Mesh:
    """Read points, or a mesh of faces with any number of corners or of triangle strips.

    Raises:
        RuntimeError: the file is truncated or damaged.
        ValueError: there are no points, a coordinate is not finite, or a requested label is not a whole number.
    """
    normals, found_labels = None, None
    with Parsing(path, ".ply"):
        found = _read(path.read_bytes())
        vertex = found.get("vertex", {})
        points = _numbers(vertex, ("x", "y", "z"))
        triangles = [
            split(*_corners(found[element]))
            for element, split in (("face", _fans), ("tristrips", _strips))
            if element in found
        ]
        if triangles and not sum(map(len, triangles)):
            raise ValueError("none of its faces has three corners")
        if not triangles and len(points) and {"nx", "ny", "nz"} <= set(vertex):
            normals = unit_normals(_numbers(vertex, ("nx", "ny", "nz")))
        name = label_name(vertex) if labels and not triangles else None
        if name is not None:
            found_labels = _numbers(vertex, (name,))
    if triangles:
        return Mesh(path, points, np.concatenate(triangles))
    if name is not None and found_labels is not None:
        found_labels = whole_labels(path, name, found_labels, len(points))
    return Cloud(path, points, normals, labels=found_labels)


def _read(content: bytes) -> dict[str, _Columns]:
    """Return all elements that have rows, and ``vertex`` even if it has none."""
    head = re.match(rb"(?i:ply)\s*\n(.*?)^end_header[ \t]*(?:\r?\n|\Z)", content, re.DOTALL | re.MULTILINE)
    if head is None:
        raise ValueError("expected a header from 'ply' to 'end_header'")
    form, elements = _header(head[1].decode("latin-1"))
    body = memoryview(content)[head.end() :]
    lines = [line for line in bytes(body).splitlines() if line.strip()] if form == "ascii" else []
    found: dict[str, _Columns] = {}
    for name, count, properties in elements:
        if form == "ascii":
            if count > len(lines):
                raise ValueError(f"expected {count} rows of {name!r} by the header, got {len(lines)}")
            numbers = np.array(b" ".join(lines[:count]).split(), dtype=np.float64)
            properties = [(key, "d", length and "d") for key, _, length in properties]
            columns, rest = _rows(name, count, properties, "=", memoryview(numbers.tobytes()))
            if rest:
                raise ValueError(f"got more numbers in {count} rows of {name!r} than its header announces")
            lines = lines[count:]
        else:
            columns, body = _rows(name, count, properties, _ORDERS[form], body)
        if count or name == "vertex":
            found.setdefault(name, columns)
    return found


def _header(text: str) -> tuple[str, list[tuple[str, int, list[_Property]]]]:
    """Return the format, and the name, the number of rows and the properties of each element."""
    form = ""
    elements: list[tuple[str, int, list[_Property]]] = []
    for line in text.splitlines():
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", form, _]:
                pass
            case ["element", name, count] if count.isdecimal():
                elements.append((name, int(count), []))
            case ["property", "list", length, kind, name] if elements and {length, kind} <= set(TYPES):
                elements[-1][2].append((name.lower(), TYPES[kind], TYPES[length]))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1][2].append((name.lower(), TYPES[kind], ""))
            case _:
                raise ValueError(f"the header has an invalid line {line!r}")
    if form not in _ORDERS:
        raise ValueError(f"expected a format of {', '.join(_ORDERS)}, got {form!r}")
    return form, elements


def _rows(
    name: str, count: int, properties: list[_Property], order: str, data: memoryview
) -> tuple[_Columns, memoryview]:
    """Read the rows of one element; returns their columns and the remaining data."""
    if not properties:
        return {}, data
    least = sum(struct.calcsize(order + (length or kind)) for _, kind, length in properties)
    if count * least > len(data):
        raise ValueError(f"it is too small for {count} rows of {name!r}, as its header announces")
    keys = [key for key, _, _ in properties]
    columns, end = _walk(min(count, 1), properties, order, data)
    if count > 1:
        fields: list[tuple] = []  # of a row, if all rows have lists as long as those of the first
        for i, ((_, kind, length), (_, lengths)) in enumerate(zip(properties, columns, strict=True)):
            fields += [(f"length{i}", order + length)] if length else []
            fields.append((f"{i}", order + kind, (lengths[0],)))
        row, lists = np.dtype(fields), [i for i, (_, _, length) in enumerate(properties) if length]
        rows = np.frombuffer(data, row, count) if 0 < count * row.itemsize <= len(data) else None
        if rows is not None and all((rows[f"length{i}"] == columns[i][1][0]).all() for i in lists):
            columns = [
                (rows[f"{i}"].reshape(-1), lengths.repeat(count)) for i, (_, lengths) in enumerate(columns)
            ]
            end = count * row.itemsize
        else:
            columns, end = _walk(count, properties, order, data)
    return dict(zip(keys, columns, strict=True)), data[end:]


def _walk(
    count: int, properties: list[_Property], order: str, data: memoryview
) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    """Read rows one by one, since their lists differ in length; returns their columns and where they end."""
    values: list[list[memoryview]] = [[] for _ in properties]
    lengths: list[list[int]] = [[] for _ in properties]
    at = 0
    for _ in range(count):
        for i, (key, kind, length) in enumerate(properties):
            number = 1
            if length:
                (number,) = struct.unpack_from(order + length, data, at)
                at += struct.calcsize(order + length)
            end = at + int(number) * struct.calcsize(order + kind)
            if number != int(number) or not at <= end <= len(data):
                raise ValueError(f"it has no {number} numbers in a row of {key!r}")
            values[i].append(data[at:end])
            lengths[i].append(int(number))
            at = end
    columns = [
        (np.frombuffer(b"".join(values[i]), order + kind), np.array(lengths[i], dtype=np.int64))
        for i, (_, kind, _) in enumerate(properties)
    ]
    return columns, at


def _numbers(columns: _Columns, names: Sequence[str]) -> np.ndarray:
    """Return properties of one number each, as ``(n, len(names))`` float64."""
    if not set(names) <= set(columns):
        raise ValueError(f"expected {', '.join(names)} of each vertex, got {', '.join(columns) or 'none'}")
    if any((columns[name][1] != 1).any() for name in names):
        raise ValueError(f"expected one number for each of {', '.join(names)}, got lists")
    return np.stack([columns[name][0].astype(np.float64) for name in names], axis=1)


def _corners(columns: _Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertex indices of all faces joined, int64, and their number for each face."""
    name = next((name for name in ("vertex_indices", "vertex_index") if name in columns), None)
    if name is None:
        raise ValueError(f"expected vertex_indices of each face, got {', '.join(columns) or 'none'}")
    values, lengths = columns[name]
    with np.errstate(invalid="ignore"):
        corners = values.astype(np.int64)
    if (corners != values).any():
        raise ValueError("a face has a vertex index that is not a whole number")
    return corners, lengths


def _fans(corners: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Split faces into triangles ``(F, 3)`` that share the first corner of their face."""
    each = np.maximum(lengths - 2, 0)
    first = np.repeat(np.cumsum(lengths) - lengths, each)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(each) - each, each)
    return corners[np.stack([first, second, second + 1], axis=1)]


def _strips(corners: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Split strips into triangles ``(F, 3)`` of three consecutive corners; -1 starts a new strip."""
    corners = np.insert(corners, np.cumsum(lengths), -1)
    place = np.arange(len(corners))
    begin = np.maximum.accumulate(np.where(corners < 0, place + 1, 0))
    triangles = np.lib.stride_tricks.sliding_window_view(corners, 3)
    odd = ((place - begin) % 2 == 1)[: len(triangles)]
    triangles = np.where(odd[:, None], triangles[:, [1, 0, 2]], triangles)
    return triangles[(triangles >= 0).all(axis=1)]
