"""Report an evaluation: figures on the console and in JSON, and the result's tables and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.writing import write_csv, write_json
from .curves import read_columns


def print_result(results: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Print the figures of each result, with the split they were measured on and the selection split."""
    cleaned = ", strays dropped" if facts.get("drop_strays") else ""
    print(f"{facts['name']} on {facts['split']} ({facts['clouds']:,} clouds, {facts['points']}{cleaned}):")
    for which, result in results.items():
        figures = ", ".join(f"{name} {value:.2f} %" for name, value in result.summary().items())
        note = ""
        if which == "selected":
            note = f" (epoch {facts['selected_epoch']}, selected on {facts['select_on']})"
            if facts["select_on"] == facts["split"]:
                note += " WARNING: selected on the split it is measured on, so it is too high"
        print(f"  {which:<10} {figures}{note}")
        details = ", ".join(f"{name} {value:.2f} %" for name, value in _details(result).items())
        if details:
            print(f"  {'':<10} {details}")


def write_report(
    folder: Path, results: Mapping[str, Any], facts: Mapping[str, Any], names: Sequence[str] = ()
) -> list[Path]:
    """Write ``results.json``, and the tables and the picture of the last result.

    Args:
        folder: existing folder for the files.
        results: results by name (:class:`bixt3d.seams.Result`). Tables and picture show the last one.
        facts: further entries of ``results.json``.
        names: names of the clouds in the order of the split, for a table with one row per cloud; empty for none.

    Returns:
        Paths of the tables and of the picture.
    """
    summary = {**facts, "results": {which: result.summary() for which, result in results.items()}}
    details = {which: _details(result) for which, result in results.items()}
    if any(details.values()):
        summary["details"] = details
    # a figure of a user's task may be NaN, which must not make the report fail
    write_json(folder / "results.json", summary, allow_nan=True)
    which, result = list(results.items())[-1]
    per_cloud = result.per_cloud(names) if names and hasattr(result, "per_cloud") else {}
    tables = result.tables() | per_cloud
    for name, rows in tables.items():
        write_csv(folder / name, rows)
    figures = ", ".join(f"{name} {value:.2f} %" for name, value in result.summary().items())
    title = f"{facts['name']}, {facts['split']}, {which}: {figures}"
    result.draw(folder / result.picture, title)
    return [folder / name for name in (*tables, result.picture)]


def _details(result: Any) -> Mapping[str, float]:
    """Return the further figures of a result, if it has any."""
    return result.details() if hasattr(result, "details") else {}


def minutes_to(path: Path, figure: str, targets: Sequence[float]) -> dict[str, float | None]:
    """Return the minutes after which each target was first reached on the selection split.

    Args:
        path: the run's ``selection.csv``. Its minutes are spent on training and selection, interruptions excluded.
        figure: name of the column to compare.
        targets: values to reach.

    Returns:
        Minutes by target; None for a target that was not reached or not recorded.
    """
    columns = read_columns(path)
    looks = list(zip(columns.get("minutes", []), columns.get(figure, []), strict=False))
    return {
        f"{target:g}": min((minute for minute, value in looks if value >= target), default=None)
        for target in targets
    }
