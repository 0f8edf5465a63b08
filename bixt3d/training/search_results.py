"""Results of a search: the figures of its runs, as a CSV file and a Markdown table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..io.writing import write_csv, write_json, write_text
from .curves import NOT_FIGURES, read_columns
from .seeds import markdown, mean_and_deviation, paired_differences

FINISHED = "finished.json"


@dataclass(frozen=True)
class Run:
    """One training run of a search.

    Attributes:
        setting: name of the setting.
        seed: seed of the run (``train.seed``).
        overrides: overrides of the base config.
        folder: the run's folder.
    """

    setting: str
    seed: int
    overrides: tuple[str, ...]
    folder: Path

    @property
    def log(self) -> Path:
        """File with the output of the run."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def finished(self) -> bool:
        """Whether the run has finished."""
        return (self.folder / FINISHED).is_file()

    def finish(self, seconds: float) -> None:
        """Mark the run as finished, after this many seconds of training and selection, interruptions excluded."""
        write_json(self.folder / FINISHED, {"minutes": round(seconds / 60, 3)})

    @property
    def minutes(self) -> float:
        """Minutes that a finished run spent on training and selection."""
        return json.loads((self.folder / FINISHED).read_text(encoding="utf-8"))["minutes"]

    def figures(self) -> dict[str, float]:
        """Return the last figures of the run on the validation split, in percent."""
        selection = read_columns(self.folder / "selection.csv")
        return {name: values[-1] for name, values in selection.items() if name not in NOT_FIGURES}


def write_tables(runs: Sequence[Run], failures: Mapping[Run, str], out: Path) -> None:
    """Write ``results.csv``, with a row per finished or failed run, and ``results.md``, with a row per setting.

    Args:
        runs: all runs of the search, as for :func:`markdown_table`.
        failures: runs that failed, with the reason.
        out: existing folder for the two files.
    """
    done = {run: run.figures() for run in runs if run.finished}
    names = list(next(iter(done.values()), {}))
    rows: list[list[object]] = [["setting", "seed", *names, "minutes", "failure", "overrides"]]
    for run in runs:
        if run in done or run in failures:
            figures = [done.get(run, {}).get(name, "") for name in names]
            minutes = f"{run.minutes:.2f}" if run in done else ""
            overrides = " ".join(run.overrides)
            rows.append([run.setting, run.seed, *figures, minutes, failures.get(run, ""), overrides])
    write_csv(out / "results.csv", rows)
    write_text(out / "results.md", markdown_table(runs, failures))


def markdown_table(runs: Sequence[Run], failures: Mapping[Run, str]) -> str:
    """Return the results of a search as a Markdown table with one row per setting.

    For each figure it shows the values by seed, their mean, and the difference to the first setting, which is paired by
    seed over the seeds that both have finished. Means come with the sample standard deviation.

    Args:
        runs: all settings with all seeds. The setting of the first run is the baseline.
        failures: runs that failed, with the reason, which is listed below the table.
    """
    done = {(run.setting, run.seed): run.figures() for run in runs if run.finished}
    if not done:
        return "No run has finished.\n"
    failed = {(run.setting, run.seed) for run in failures}
    names = list(next(iter(done.values())))
    settings, seeds = list(dict.fromkeys(r.setting for r in runs)), list(dict.fromkeys(r.seed for r in runs))

    def by_seed(setting: str, name: str) -> dict[int, float]:
        return {s: done[setting, s][name] for s in seeds if (setting, s) in done}

    heads = ["setting"]
    for name in names:
        heads += [f"val {name}: seed {seeds[0]}", *(f"seed {s}" for s in seeds[1:]), "mean", "difference"]
    rows = [[*heads, "minutes"]]
    for setting in settings:
        row = [setting]
        for name in names:
            mine, of_first = by_seed(setting, name), by_seed(settings[0], name)
            for s in seeds:
                missing = "failed" if (setting, s) in failed else "-"
                row.append(f"{mine[s]:.2f}" if s in mine else missing)
            difference = mean_and_deviation(paired_differences(mine, of_first), sign="+")
            row += [mean_and_deviation(mine.values()), "" if setting == settings[0] else difference]
        minutes = [run.minutes for run in runs if run.setting == setting and run.finished]
        rows.append([*row, f"{statistics.mean(minutes):.1f}" if minutes else "-"])
    reasons = [f"{run.setting}, seed {run.seed}, failed: {reason}" for run, reason in failures.items()]
    return "\n".join([*markdown(rows), *(["", *reasons] if reasons else []), ""])
