"""Compare runs in one table: their settings where they differ, costs and figures."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import differences, from_yaml
from ..errors import placed
from ..io.writing import write_csv, write_text
from .curves import NOT_FIGURES, read_columns, read_rates
from .resume import FREE_ON_RESUME
from .seeds import markdown, mean_and_deviation, paired_differences

# Keys of a config that do not count as settings: names, paths, the seed, and what changes no result.
NO_SETTINGS = {"name", "train.seed", *FREE_ON_RESUME} - {"train.max_steps"}
# Columns of costs: key of results.json, divisor for the unit, and digits after the point.
COSTS = {
    "parameters, M": ("parameters", 1e6, 2),
    "GFLOP a cloud": ("operations", 1e9, 2),
    "minutes": ("minutes", 1, 1),
    "samples/s": ("samples_per_second", 1, 0),
    "peak memory, GiB": ("peak_memory", 2**30, 2),
}


@dataclass(frozen=True)
class RunRow:
    """What a run folder records about a run.

    Attributes:
        name: name of the run in the table.
        config: the resolved config.
        costs: costs by the columns of :data:`COSTS`, without those that are not known.
        figures: figures in percent by split, name and weights, such as ``"test OA, last"``.
    """

    name: str
    config: Mapping[str, Any]
    costs: Mapping[str, float]
    figures: Mapping[str, float]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config["train"]["seed"]


def read_run(name: str, folder: str | Path) -> RunRow:
    """Read the row of a run from its folder.

    The figures are those of ``results.json`` or, if the run has not been measured, the last ones of
    ``selection.csv``.

    Raises:
        FileNotFoundError: the folder does not contain a run.
        ValueError: one of its files cannot be read.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{folder}: no config.yaml here; expected the folder of a run of scripts/train_cls.py or train_partseg.py."
        )
    config = from_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
    selection = {k: values for k, values in read_columns(folder / "selection.csv").items() if values}
    said, measured = {}, folder / "results.json"
    if measured.is_file():
        try:
            said = json.loads(measured.read_text(encoding="utf-8"))
        except ValueError as error:
            raise placed(error, f"{measured}: cannot be read, it may be damaged: ") from error
    figures = {
        f"{said['split']} {figure}, {which}": value
        for which, result in said.get("results", {}).items()
        for figure, value in result.items()
    }
    if not said:
        split = config["train"]["select_on"]
        figures = {f"{split} {k}, last": v[-1] for k, v in selection.items() if k not in NOT_FIGURES}
    known = {key: said[key] for key, _, _ in COSTS.values() if said.get(key) is not None}
    if "minutes" in selection:
        known.setdefault("minutes", selection["minutes"][-1])
    if rates := read_rates(folder):
        known.setdefault("samples_per_second", statistics.median(rates))
    costs = {head: known[key] / unit for head, (key, unit, _) in COSTS.items() if key in known}
    return RunRow(name, config, costs, figures)


def write_table(runs: Sequence[RunRow], path: Path) -> None:
    """Write the :func:`table` of runs: one row per run, then means and paired differences over several seeds.

    Args:
        runs: the runs, in the order of their rows.
        path: a file name that ends in ``.csv`` or ``.md``.

    Raises:
        ValueError: the file name ends in something else.
    """
    if path.suffix not in (".csv", ".md"):
        raise ValueError(f"{path}: expected a table whose name ends in .csv or .md.")
    rows = table(runs)
    if path.suffix == ".csv":
        write_csv(path, rows)
    else:
        lines = markdown([[cell.replace("|", "\\|") for cell in row] for row in rows])
        write_text(path, "\n".join([*lines, ""]))


def table(runs: Sequence[RunRow]) -> list[list[str]]:
    """Return the table of runs as rows of cells, of which the first is the header.

    Runs whose configs differ only in the seed, the name and keys that change no result count as one setting. A setting
    with several seeds gets a row of mean ± sample standard deviation. A later setting that shares several seeds with
    the first one also gets a row of differences to it, paired by seed. If a seed occurs twice, the first run counts.
    """
    settings = _varying([run.config for run in runs])
    heads = list(dict.fromkeys(head for head in COSTS for run in runs if head in run.costs))
    figures = list(dict.fromkeys(figure for run in runs for figure in run.figures))
    rows = [["run", "seed", *settings, *heads, *figures]]

    def add(name: str, seeds: Iterable[int], run: RunRow, values: Mapping[str, str]) -> None:
        described = [column[runs.index(run)] for column in settings.values()]
        cells = [values.get(head, "") for head in [*heads, *figures]]
        rows.append([name, ", ".join(map(str, seeds)), *described, *cells])

    for run in runs:
        costs = {head: f"{value:.{COSTS[head][2]}f}" for head, value in run.costs.items()}
        add(run.name, [run.seed], run, {**costs, **{name: f"{v:.2f}" for name, v in run.figures.items()}})

    groups = _groups(runs)
    first = groups[0]
    for group in groups:
        one = next(iter(group.values()))
        if len(group) > 1:
            means = {
                head: _mean(head, by_seed)
                for head in [*heads, *figures]
                if (by_seed := _by_seed(group, head))
            }
            add(f"mean of {len(group)} seeds", group, one, means)
        both = [seed for seed in group if seed in first]
        if group is not first and len(both) > 1:
            gains = {
                head: mean_and_deviation(pairs, sign="+")
                for head in figures
                if (pairs := paired_differences(_by_seed(group, head), _by_seed(first, head)))
            }
            baseline = next(iter(first.values())).name
            add(f"difference to {baseline} over {len(both)} seeds", both, one, gains)
    return rows


def _mean(head: str, by_seed: Mapping[int, float]) -> str:
    if head not in COSTS:
        return mean_and_deviation(by_seed.values())
    same = len(set(by_seed.values())) == 1  # such as the number of parameters
    return mean_and_deviation([*by_seed.values()][: 1 if same else None], digits=COSTS[head][2])


def _groups(runs: Sequence[RunRow]) -> list[dict[int, RunRow]]:
    """Group the runs by setting, and within a setting by seed."""
    groups: list[dict[int, RunRow]] = []
    for run in runs:
        for group in groups:
            if not differences(next(iter(group.values())).config, run.config, besides=sorted(NO_SETTINGS)):
                break
        else:
            groups.append(group := {})
        group.setdefault(run.seed, run)
    return groups


def _by_seed(group: Mapping[int, RunRow], head: str) -> dict[int, float]:
    both = {seed: {**run.costs, **run.figures} for seed, run in group.items()}
    return {seed: values[head] for seed, values in both.items() if head in values}


def _varying(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the settings that differ between configs, as dotted keys with the value in each config."""
    columns = {}
    for key, values in _unequal(list(configs), ""):
        if key not in NO_SETTINGS:
            short = [_short(value) for value in values]
            columns[key] = short if len(set(short)) > 1 else list(map(str, values))
    return columns


def _unequal(nodes: list[Any], prefix: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield the keys in which nodes differ, with all values; keys inside are compared between nodes of one target.

    A node is None if its config has no value, or another target, at this place.
    """
    there = [node for node in nodes if node is not None]
    if all(node == there[0] for node in nodes):
        return
    kinds = [node.get("_target_", "") if isinstance(node, Mapping) else None for node in nodes]
    if len(set(kinds)) > 1 or kinds[0] is None:
        yield prefix, nodes
    for kind in dict.fromkeys(k for k in kinds if k is not None):
        same = [node if k == kind else None for node, k in zip(nodes, kinds, strict=True)]
        of_kind = [node for node in same if node is not None]
        for key in dict.fromkeys(key for node in of_kind for key in node):
            below = [None if node is None else node.get(key) for node in same]
            if any(node.get(key) != of_kind[0].get(key) for node in of_kind):
                yield from _unequal(below, f"{prefix}.{key}".lstrip("."))


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "_target_" in value:
        return value["_target_"].rpartition(".")[2]
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return "" if value is None else str(value)
