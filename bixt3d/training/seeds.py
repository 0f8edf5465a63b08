"""Statistics over the seeds of a setting (mean, standard deviation, paired difference), and Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence


def mean_and_deviation(values: Iterable[float], *, sign: str = "", digits: int = 2) -> str:
    """Format the mean and, for several values, the sample standard deviation: ``"89.21 ± 0.35"``.

    Args:
        values: the values; ``"-"`` is returned if there are none.
        sign: ``"+"`` to write the sign of a positive mean too.
        digits: digits after the point.
    """
    values = list(values)
    if not values:
        return "-"
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def paired_differences(mine: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Return ``mine - other`` for each seed that both have; pairing cancels the effect of the seed on both."""
    return [value - other[seed] for seed, value in mine.items() if seed in other]


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the first row is its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return lines
