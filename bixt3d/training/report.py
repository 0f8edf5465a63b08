"""Reports of an evaluation: figures on the console and as JSON, the result's own tables and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io.writing import write_csv, write_json
from .curves import read_columns


def print_result(results: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Print the figures of each result, with the split they were measured on and the one that selected."""
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
    """Write ``results.json`` and, for the last of the results, its tables and picture.

    Args:
        folder: existing folder for the files.
        results: results by name (:class:`bixt3d.seams.Result`); tables and picture show the last one.
        facts: what else ``results.json`` records.
        names: of the clouds, in the order of the split, for a table with a row for each; empty for no such table.

    Returns:
        The files of the tables and of the picture.
    """
    summary = {**facts, "results": {which: result.summary() for which, result in results.items()}}
    details = {which: _details(result) for which, result in results.items()}
    if any(details.values()):
        summary["details"] = details
    # a figure of a task of one's own may be NaN, and would cost the report
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
    """Return what a result has to say besides the figures that papers report; a task of one's own may have nothing."""
    return result.details() if hasattr(result, "details") else {}


def minutes_to(path: Path, figure: str, targets: Sequence[float]) -> dict[str, float | None]:
    """Say in which minute of a run each target was first reached on the split that selects.

    Args:
        path: the run's ``selection.csv``; its minutes are of training and selecting, over all stretches.
        figure: column that is compared.
        targets: values to reach.

    Returns:
        Minutes by target, None for one that was not reached, or not recorded.
    """
    columns = read_columns(path)
    looks = list(zip(columns.get("minutes", []), columns.get(figure, []), strict=False))
    return {
        f"{target:g}": min((minute for minute, value in looks if value >= target), default=None)
        for target in targets
    }
