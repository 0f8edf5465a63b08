"""What the seeds of a setting come to: mean, standard deviation, paired difference, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence


def mean_and_deviation(values: Iterable[float], *, sign: str = "", digits: int = 2) -> str:
    """Write the mean and, of several values, their sample standard deviation: ``"89.21 ± 0.35"``; of none ``"-"``."""
    values = list(values)
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def paired_differences(mine: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Return ``mine`` minus ``other`` seed by seed, over the seeds of both: what a seed does to both cancels."""
    return [value - other[seed] for seed, value in mine.items() if seed in other]


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return lines
