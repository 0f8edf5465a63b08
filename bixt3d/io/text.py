"""Read text files with rows of numbers: .xyz, .pts, .txt, .asc, .csv and similar."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np

from bixt3d.io.cloud import Cloud, split_columns, unit_normals
from bixt3d.io.labels import label_name, whole_labels

_COMMENTS = ("#", "//", "%")
_AXES = ["x", "y", "z"]
_NORMALS = ["nx", "ny", "nz"]
# ParaView's column names; those exported from its table view have _ in place of the colon
_PARAVIEW = {
    f"{name}{mark}{i}": axes[i]
    for name, axes in (("points", _AXES), ("normals", _NORMALS))
    for mark in ":_"
    for i in range(3)
}
_FORTRAN_NUMBER = re.compile(r"\d\.?[dD][+-]?\d")  # Fortran writes 1.5 in double precision as 1.5D+00
_FORTRAN = str.maketrans("Dd", "Ee")


def read_text(path: Path, *, labels: bool = False) -> Cloud:
    """Read rows of 3 or more numbers; if the first line is a count, their number must match it.

    A header determines the columns of x, y and z, of normals (nx, ny, nz) if there are any, and of requested labels.
    Without a header, the first three columns are x, y and z. The suffixes .xyzn and .xyzrgb then determine the
    meaning of the next three; see :func:`~bixt3d.io.cloud.split_columns` for other suffixes.

    Raises:
        RuntimeError: the file is not text or not rows of numbers, or is truncated.
        ValueError: there are no points, the columns are ambiguous, a coordinate is not finite, or a label is not a
            whole number.
    """
    lines = [line for line in (line.strip() for line in _decode(path).splitlines()) if line]
    # a semicolon starts a comment, unless semicolons separate the columns and the first cell is empty
    rows = [x for x in lines if not x.startswith(_COMMENTS) and (x[0] != ";" or ";" in x[1:])]
    names, rows = _take_header(path, rows)
    count = None
    if rows and rows[0].isdecimal() and len(rows[0]) < 20:  # int() rejects numbers with thousands of digits
        count, rows = int(rows[0]), rows[1:]
    if not rows:
        raise ValueError(f"{path}: the file has no points; expected rows of at least 3 numbers.")
    names = names or _commented_names(lines, rows[0])
    wanted = _AXES + _NORMALS if set(_NORMALS) <= set(names) else _AXES
    label = label_name(names) if labels else None
    table = _parse(path, rows, names, wanted if label is None else [*wanted, label])
    if count is not None and count != len(table):
        raise RuntimeError(
            f"{path}: expected {count} points by its first line, got {len(table)}; it may be truncated."
        )
    suffix = path.suffix.lower()
    if not names and suffix == ".xyzn" and table.shape[1] != 6:
        raise ValueError(f"{path}: expected rows of 6 numbers (x y z nx ny nz), got {table.shape[1]}.")
    if not names and suffix == ".xyzrgb":
        table = table[:, :3]  # a colour may have unit length, like a normal
    if not names and suffix != ".xyzn":
        return split_columns(path, table, labels=labels)
    found = None if label is None else whole_labels(path, label, table[:, -1], len(table))
    normals = unit_normals(table[:, 3:6]) if table.shape[1] >= 6 else None
    return Cloud(path, np.ascontiguousarray(table[:, :3]), normals, labels=found)


def _decode(path: Path) -> str:
    """Decode a file as UTF-8 or UTF-16; other encodings are accepted as long as the numbers are in ASCII."""
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    text = content.decode("utf-8-sig", errors="replace")
    if "\0" in text or ("\ufffd" in text and not re.search("[0-9]", text)):
        raise RuntimeError(f"{path}: expected text, got binary data; check the suffix.")
    return text


def _take_header(path: Path, rows: list[str]) -> tuple[list[str], list[str]]:
    """Return the column names, empty if there is no header, and the rows below the header."""
    for i, row in enumerate(rows):
        cells = _names(row)
        if _names_axes(cells):
            return cells, rows[i + 1 :]
        if all(_is_number(cell) for cell in cells):
            if i == 0:
                return [], rows
            # taking the first three columns would be a guess, and wrong if the first is an id
            raise ValueError(
                f"{path}: expected a header that names x, y and z once each, got {rows[i - 1][:60]!r}; rename its "
                "columns, or put # before it to use the first three columns."
            )
        _check_cells(path, row)
        if any(_is_number(cell) for cell in cells[:3]):
            raise RuntimeError(f"{path}: the first row is not all numbers, got {row[:60]!r}.")
    return [], []


def _commented_names(lines: Sequence[str], first_row: str) -> list[str]:
    """Return the column names in a comment above the rows: one for each column, including x, y and z."""
    width = len(_cells(first_row))
    for line in takewhile(lambda line: line is not first_row, lines):
        cells = _names(line.lstrip("#/%; \t"))
        if len(cells) == width and _names_axes(cells):
            return cells
    return []


def _parse(path: Path, rows: list[str], names: list[str], wanted: Sequence[str]) -> np.ndarray:
    """Convert rows to numbers: all columns or, if there are names, the wanted ones in that order."""
    _check_cells(path, rows[0], named=bool(names))
    separator = _separator(rows[0])
    columns: list[int] | None = None
    if names:
        columns = [names.index(name) for name in wanted]
        # numpy reads only these columns; if they are all columns, it checks the width of the rows itself
        _check_widths(path, rows if len(names) > len(wanted) else rows[:1], names)
    elif separator and rows[0].endswith(separator):
        rows = [row.removesuffix(separator) for row in rows]
    if _FORTRAN_NUMBER.search(rows[0]):
        rows = [row.translate(_FORTRAN) for row in rows]
    try:
        return np.loadtxt(
            rows,
            delimiter=separator,
            quotechar='"',
            usecols=columns,
            comments=None,
            ndmin=2,
            dtype=np.float64,
        )
    except ValueError as error:
        at = columns[-1] if columns and wanted[-1] not in _AXES + _NORMALS else None  # column of the labels
        for row in rows:
            _check_cells(path, row, named=bool(names))
            cells = _cells(row + (separator or ""))  # so that an empty last cell is counted
            if at is not None and len(cells) >= len(names) and not _is_number(cells[at]):
                raise ValueError(
                    f"{path}: {wanted[-1]}: expected whole numbers as labels, got {cells[at]!r}; number the parts "
                    "from 0, with -1 for none."
                ) from error
        raise RuntimeError(
            f"{path}: cannot be read as rows of equally many numbers, it may be truncated: {error}"
        ) from error


def _check_widths(path: Path, rows: list[str], names: list[str]) -> None:
    separator = _separator(rows[0])
    for row in rows:
        width = len(_cells(row)) if '"' in row else len(row.split(separator))
        last_is_empty = separator is not None and row.endswith(separator)
        if len(names) not in (width, width - last_is_empty):
            raise ValueError(
                f"{path}: the header names {len(names)} columns, but a row has {width}, got {row[:60]!r}; name "
                "every column and fill in every cell."
            )


def _check_cells(path: Path, row: str, named: bool = False) -> None:
    """Reject a row in which it is unclear where one number ends and the next begins."""
    cells = _cells(row)
    if all(_is_number(cell) for cell in cells):
        return
    if "" in cells:
        if not named and any(_is_number(cell) for cell in cells):
            raise ValueError(
                f"{path}: a row has an empty field, got {row[:60]!r}; fill it in or remove the row."
            )
    elif all(_is_number(word) for word in re.split(r'[,;\s"]+', row.strip(',; "'))):
        # a decimal comma or two separators: a wrong guess would change every point
        raise ValueError(
            f"{path}: a row uses more than one separator, or decimal commas, got {row[:60]!r}; separate numbers in "
            "one way and write decimals with a point."
        )


def _separator(row: str) -> str | None:
    return next((mark for mark in ";," if mark in row), None)  # None is white space


def _cells(row: str) -> list[str]:
    """Split a row at its separator and remove quotes; one separator at the end is ignored."""
    separator = _separator(row)
    if separator is None:
        return [word.strip('"').lower() for word in row.split()]
    try:
        cells = next(csv.reader([row.removesuffix(separator)], delimiter=separator, skipinitialspace=True))
    except csv.Error:  # a cell exceeds the length limit of the csv module
        return [row]
    return [cell.strip().lower() for cell in cells]


def _names(row: str) -> list[str]:
    """Split a row that may be a header; ParaView's column names become x, y, z, nx, ny and nz."""
    cells = _cells(row)
    return cells if _names_axes(cells) else [_PARAVIEW.get(cell, cell) for cell in cells]


def _names_axes(cells: list[str]) -> bool:
    return all(cells.count(axis) == 1 for axis in _AXES)


def _is_number(cell: str) -> bool:
    try:
        float(cell.translate(_FORTRAN) if _FORTRAN_NUMBER.search(cell) else cell)
    except ValueError:
        return False
    return True
