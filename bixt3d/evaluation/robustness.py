"""Evaluate the robustness of a classifier to corruptions and to fewer points."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.corrupted import CorruptedLoader
from ..datasets.corruption_base import SEVERITIES
from ..datasets.corruptions import CORRUPTIONS
from ..engine import evaluate
from ..io.writing import write_csv, write_json
from .robustness_plots import plot_robustness

POINT_COUNTS = (1024, 512, 256, 128, 64)
FIGURES = ("OA", "mAcc", "OA relative")
COLUMNS = ("corruption", "severity", "level", "points", "OA", "mAcc")


@dataclass(frozen=True)
class RobustnessPlan:
    """The corruptions, severities and numbers of points to evaluate.

    Args:
        corruptions: names from :data:`bixt3d.datasets.corruptions.CORRUPTIONS`.
        severities: severities, each from 1 to 5.
        point_counts: numbers of points. The first ones of each cloud are used.
        seed: seed of the corruptions, 0 or more.

    Raises:
        ValueError: a value is unknown, or both ``corruptions`` and ``point_counts`` are empty.
    """

    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = SEVERITIES
    point_counts: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.corruptions and not self.point_counts:
            raise ValueError("corruption, points: expected at least one of them, such as corruption=all.")
        _among("corruption", self.corruptions, CORRUPTIONS)
        _among("severity", self.severities, SEVERITIES)
        for name, values, least in (("points", self.point_counts, 1), ("seed", (self.seed,), 0)):
            low = [value for value in values if value < least]
            if low:
                raise ValueError(f"{name}: expected whole numbers from {least} up, got {low[0]}.")

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> RobustnessPlan:
        """Parse command-line options by name, each ``all`` or a comma-separated list of values.

        Raises:
            ValueError: a value is unknown, or neither corruptions nor numbers of points are given.
        """
        seed = _numbers("seed", given.get("seed", "0"))
        if len(seed) != 1:
            raise ValueError(f"seed: expected one whole number, got {given['seed']!r}.")
        return cls(
            _chosen(given.get("corruption", ""), CORRUPTIONS),
            _numbers("severity", given.get("severity", "all"), SEVERITIES),
            _numbers("points", given.get("points", ""), POINT_COUNTS),
            seed[0],
        )


@dataclass(frozen=True)
class RobustnessResult:
    """Accuracies on clean and on corrupted clouds, in percent.

    Attributes:
        clean: ``OA`` and ``mAcc`` on clean clouds.
        rows: one row for each corruption and severity, with the keys ``COLUMNS``.
        by_points: ``OA`` and ``mAcc`` by number of points, in descending order.
        refused: numbers of points that could not be evaluated, with the reason.
        clouds: number of clouds.
    """

    clean: Mapping[str, float]
    rows: tuple[Mapping[str, Any], ...]
    by_points: Mapping[int, Mapping[str, float]]
    refused: Mapping[int, str]
    clouds: int

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the means over severities for each corruption and, with several, their ``mean``.

        ``OA relative`` is OA divided by OA on clean clouds, in percent.
        """
        names = list(dict.fromkeys(row["corruption"] for row in self.rows))
        found = {}
        for name in names:
            mine = [row for row in self.rows if row["corruption"] == name]
            found[name] = {figure: sum(r[figure] for r in mine) / len(mine) for figure in ("OA", "mAcc")}
        if len(names) > 1:
            found["mean"] = {f: sum(found[n][f] for n in names) / len(names) for f in ("OA", "mAcc")}
        for figures in found.values():
            figures["OA relative"] = self._relative(figures["OA"])
        return found

    def _relative(self, accuracy: float) -> float:
        return 100 * accuracy / self.clean["OA"] if self.clean["OA"] else float("nan")

    def print(self, facts: Mapping[str, Any]) -> None:
        """Print the tables."""
        from rich.console import Console
        from rich.table import Column, Table

        console = Console(width=None if Console().is_terminal else 120)
        cleaned = ", strays dropped" if facts.get("drop_strays") else ""
        print(
            f"{facts['name']} on {facts['split']} ({facts['clouds']:,} clouds, the first {facts['points']:,} "
            f"points{cleaned}): clean OA {self.clean['OA']:.2f} %, mAcc {self.clean['mAcc']:.2f} %"
        )
        if self.rows:
            severities = sorted({row["severity"] for row in self.rows})
            heads = [Column(str(head), justify="right") for head in (*severities, *FIGURES)]
            title = f"OA by severity, and means over severities (seed {facts['seed']})"
            table = Table("corruption", *heads, title=title)
            for name, figures in self.summary().items():
                cells = [row["OA"] for row in self.rows if row["corruption"] == name]
                cells = [f"{c:.2f}" for c in cells] or [""] * len(severities)
                table.add_row(name, *cells, *(f"{figures[f]:.2f}" for f in FIGURES))
            console.print(table)
        if self.by_points:
            heads = [Column(head, justify="right") for head in FIGURES]
            table = Table("points", *heads, title="only the first points of each cloud")
            for count, found in self.by_points.items():
                values = (found["OA"], found["mAcc"], self._relative(found["OA"]))
                table.add_row(f"{count:,}", *(f"{v:.2f}" for v in values))
            console.print(table)
        for reason in self.refused.values():
            print(f"not measured: {reason}")

    def write(self, folder: Path, facts: Mapping[str, Any]) -> list[Path]:
        """Write ``robustness.csv``, ``robustness.json`` and ``robustness.png``, and return their paths."""
        paths = [folder / f"robustness.{kind}" for kind in ("csv", "json", "png")]
        rows = [{"corruption": "none", "severity": 0, "points": facts["points"], **self.clean}, *self.rows]
        rows += [
            {"corruption": "points", "points": count, **figures} for count, figures in self.by_points.items()
        ]
        write_csv(paths[0], [COLUMNS, *([row.get(name, "") for name in COLUMNS] for row in rows)])
        content = {
            **facts,
            "clean": self.clean,
            "mean_over_severities": self.summary(),
            "measured": list(self.rows),
            "by_points": {str(count): figures for count, figures in self.by_points.items()},
        }
        write_json(paths[1], content)
        curves: dict[str, dict[int, float]] = {}
        for row in self.rows:
            curves.setdefault(row["corruption"], {})[row["severity"]] = row["OA"]
        plot_robustness(
            curves,
            {count: figures["OA"] for count, figures in self.by_points.items()},
            self.clean["OA"],
            paths[2],
            title=f"{facts['name']}, {facts['split']}, the first {facts['points']:,} points",
        )
        return paths


def measure_robustness(
    fabric: Any,
    model: Any,
    task: Any,
    make_loader: Callable[[int | None], Any],
    plan: RobustnessPlan,
) -> RobustnessResult:
    """Evaluate a classifier on clean clouds, on each corruption and severity, and on fewer points.

    Args:
        fabric: launched Lightning Fabric.
        model: model on the fabric's device, with ``min_points``.
        task: classification (:class:`bixt3d.tasks.Classification`).
        make_loader: takes the number of points, or None for that of training, and returns a loader of clean clouds.
        plan: corruptions, severities and numbers of points to evaluate.
    """
    from rich.console import Console
    from rich.progress import track

    clean_loader = make_loader(None)
    stored = clean_loader.clouds.points.shape[1]
    refused = {}
    for count in plan.point_counts:
        if count > stored:
            refused[count] = f"{count:,} points: the clouds hold {stored:,}"
        elif count < model.min_points:
            refused[count] = f"{count:,} points: the model's grouping needs {model.min_points:,}"
    console = Console(stderr=True)  # standard output is reserved for the result
    hidden = not (console.is_terminal and fabric.is_global_zero)
    shown = functools.partial(track, console=console, transient=True, disable=hidden)
    clean = evaluate(fabric, model, task, clean_loader).summary()
    rows: list[dict[str, Any]] = []
    corruptions = list(itertools.product(plan.corruptions, plan.severities))
    for name, severity in shown(corruptions, "Measuring corruptions"):
        corruption = CORRUPTIONS[name](severity)
        loader = CorruptedLoader(clean_loader, corruption, seed=plan.seed, least=model.min_points)
        figures = evaluate(fabric, model, task, loader).summary()
        rows.append(
            {
                "corruption": name,
                "severity": severity,
                "level": corruption.level,
                "points": loader.points_left,
                **figures,
            }
        )
    counts = [count for count in sorted(plan.point_counts, reverse=True) if count not in refused]
    by_points = {
        count: evaluate(fabric, model, task, make_loader(count)).summary()
        for count in shown(counts, "Measuring fewer points")
    }
    return RobustnessResult(clean, tuple(rows), by_points, refused, len(clean_loader.clouds))


def _chosen(text: str, everything: Iterable[str]) -> tuple[str, ...]:
    if text == "all":
        return tuple(everything)
    return tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()


def _numbers(argument: str, text: str, everything: Iterable[int] = ()) -> tuple[int, ...]:
    chosen = _chosen(text, map(str, everything))
    for one in chosen:
        if not one.isdecimal():
            raise ValueError(f"{argument}: expected whole numbers, got {one!r}.")
    return tuple(dict.fromkeys(map(int, chosen)))


def _among(argument: str, chosen: Iterable[Any], valid: Collection[Any]) -> None:
    for value in chosen:
        if value not in valid:
            expected = ", ".join(sorted(map(str, valid)))
            raise ValueError(f"{argument}: unknown value {str(value)!r}, expected all or some of {expected}.")
