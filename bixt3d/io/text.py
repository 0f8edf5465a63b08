"""Rows of numbers: .xyz, .pts, .txt, .csv."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from bixt3d.io.cloud import Cloud, split_columns

_COMMENTS = ("#", "//", "%", ";")


def read_text(path: Path) -> Cloud:
    """Read rows of 3 or more numbers, and check them against a leading count where there is one."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RuntimeError(f"{path}: expected text, got binary data; check the suffix.") from error
    rows = [line for line in (line.strip() for line in lines) if line and not line.startswith(_COMMENTS)]
    if any(";" in row and "," in row for row in rows[:2]):
        # Could be a decimal comma or two separators: guessing wrong would move every point.
        raise ValueError(f"{path}: rows use both ';' and ','; write decimals with a point.")
    gap = next((row for row in rows if _EMPTY_FIELD.search(row)), None)
    if gap is not None:
        raise ValueError(f"{path}: a row has an empty field, got {gap[:60]!r}; fill it in or remove the row.")
    rows = [row.translate(_SPACES) for row in rows]
    while rows and not _is_numeric(rows[0]):
        if any(_is_number(word) for word in rows[0].split()[:3]):
            raise RuntimeError(f"{path}: the first row is not all numbers, got {rows[0][:60]!r}.")
        rows = rows[1:]  # a header: names of columns
    count = None
    if rows and len(rows[0].split()) == 1 and rows[0].isdigit():
        count, rows = int(rows[0]), rows[1:]
    if not rows:
        raise ValueError(f"{path}: the file has no points; expected rows of at least 3 numbers.")
    try:
        table = np.loadtxt(rows, dtype=np.float64, ndmin=2, comments=None)
    except ValueError as error:
        raise RuntimeError(
            f"{path}: cannot be read as rows of equally many numbers, it may be truncated: {error}"
        ) from error
    if count is not None and count != len(table):
        raise RuntimeError(
            f"{path}: expected {count} points by its first line, got {len(table)}; it may be truncated."
        )
    return split_columns(path, table)


_EMPTY_FIELD = re.compile(r"(^|[,;])\s*[,;]")
_SPACES = str.maketrans(",;\t", "   ")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_numeric(row: str) -> bool:
    return all(_is_number(word) for word in row.split())
