"""Train and evaluate the paper's ModelNet40 classifiers, in one call or several, and collect the figures.

python scripts/reproduce_modelnet40.py --data-root DIR                             # three variants, one seed
python scripts/reproduce_modelnet40.py --data-root DIR --variant hierarchy --seeds 0 1 2
python scripts/reproduce_modelnet40.py --data-root DIR --minutes 9                 # stop in time; repeat to continue
python scripts/reproduce_modelnet40.py --data-root DIR --dry-run                   # show what would run
python scripts/reproduce_modelnet40.py --data-root DIR --train default train.batch_size=16   # without a GPU
python scripts/reproduce_modelnet40.py --data-root DIR --variant cpu cpu_hierarchy  # sizes made for a CPU

Each run has three steps: train (cfgs/modelnet40_VARIANT.yaml), measure the robustness, and write the weights and a
model card. Steps that are done are skipped, and an interrupted training is continued. OUT/results.md has the figures of
all runs. Exit status: 0 when all is done, 143 (as after SIGTERM) when the time is up, else that of the command that
failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from bixt3d.errors import report_errors
from bixt3d.io.writing import write_text
from bixt3d.training.seeds import markdown, mean_and_deviation
from bixt3d.training.signals import STOPS

ROOT = Path(__file__).parents[1]
VARIANTS = ("naive", "grouping", "hierarchy", "speedrun", "cpu", "cpu_hierarchy")
HEADS = "variant | seed | last OA / mAcc | selected OA / mAcc | epoch | minutes | minutes to | OA corrupted"
CUT = tuple(128 + number for number in STOPS)
SPARE = 1.0  # minutes that a training command needs to start, save and evaluate, besides training
LEAST = 1.0  # minutes of training below which none is started: compiling would take them all


class Step(NamedTuple):
    """One command of a run."""

    result: Path  # this file exists once the command has succeeded
    command: list[str]
    trains: bool = False
    optional: bool = False  # if it fails, the others still run


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data-root", type=Path, required=True, help="folder of ModelNet40")
    made.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="default: runs/reproduce")
    made.add_argument(
        "--variant", nargs="+", choices=VARIANTS, default=VARIANTS[:3], help="default: the first three"
    )
    made.add_argument("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    made.add_argument("--minutes", type=float, help="stop after this many minutes (default: no limit)")
    made.add_argument(
        "--train", help="config group option of cfgs/train (default: gpu; for the variants cpu*: default)"
    )
    made.add_argument(
        "--max-mb", type=float, default=16.0, help="maximum size of a weights file (default: 16)"
    )
    made.add_argument(
        "--dry-run", action="store_true", help="print the remaining commands without running them"
    )
    made.add_argument("overrides", nargs="*", metavar="key=value", help="further overrides for training")
    return made


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    # allow overrides anywhere, also after an option that takes several values
    overrides = [a for a in given if "=" in a and not a.startswith("-")]
    options = parser().parse_args([*(a for a in given if a not in overrides), "--", *overrides])
    return report_errors(lambda: reproduce(options))


def reproduce(options: argparse.Namespace) -> int:
    if options.minutes is not None and options.minutes <= SPARE + LEAST:
        raise ValueError(f"--minutes: expected more than {SPARE + LEAST:g}, got {options.minutes:g}.")
    if not options.data_root.is_dir():
        raise FileNotFoundError(
            f"{options.data_root}: no such folder; fetch the data with 'python scripts/prepare_data.py modelnet40'."
        )
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    for variant in options.variant:
        for seed in options.seeds:
            status = run(variant, seed, options, deadline)
            if status:
                return status
    if not options.dry_run:
        write_table(options)
    return 0


def run(variant: str, seed: int, options: argparse.Namespace, deadline: float | None) -> int:
    """Run the remaining steps of one run; return 0 when all are done, else an exit status."""
    for step in steps(variant, seed, options):
        if step.result.exists():
            continue
        command, least = step.command, 0.0
        left = None if deadline is None else (deadline - time.monotonic()) / 60 - SPARE
        if step.trains and left is not None:
            command, least = [*command, f"train.max_minutes={max(left, 0.01):.2f}"], LEAST
        print(f"+ {shlex.join(['python', *command])}", flush=True)
        if options.dry_run:
            continue
        if left is not None and left <= least:
            return time_is_up(options)
        status = call(command)
        if status in CUT:
            return time_is_up(options)
        if status and step.optional:
            print(f"continued without {step.result}", flush=True)
        elif status:
            return status
    return 0


def steps(variant: str, seed: int, options: argparse.Namespace) -> list[Step]:
    """List the steps of one run, in order."""
    name = f"modelnet40_{variant}"
    folder = options.out / f"{name}_seed{seed}"
    scripts = Path(os.path.relpath(ROOT / "scripts"))
    regime = options.train or ("default" if variant.startswith("cpu") else "gpu")
    train = [
        str(scripts / "train_cls.py"),
        str(scripts.parent / "cfgs" / f"{name}.yaml"),
        f"train={regime}",
        f"data.root={options.data_root}",
        f"train.seed={seed}",
        f"run_dir={folder}",
        "train.resume=auto",
        *options.overrides,
    ]
    best, robustness = folder / "best.pt", folder / "robustness"
    measure = [str(scripts / "evaluate.py"), str(best), "corruption=all", "points=all", f"out={robustness}"]
    weights = options.out / "weights" / f"{name}_seed{seed}.safetensors"
    publish = [str(scripts / "publish.py"), str(best), str(weights.parent), "--name", weights.stem]
    publish += ["--robustness", str(robustness / "robustness.json"), "--max-mb", f"{options.max_mb:g}"]
    return [
        Step(folder / "results.json", train, trains=True),
        Step(robustness / "robustness.json", measure),
        Step(weights, publish, optional=True),
    ]


def call(command: list[str]) -> int:
    """Run a script and return its exit status. Signals that ask to stop are passed on to it, so that it can save."""
    process = subprocess.Popen([sys.executable, *command])
    # Ctrl-C, and Ctrl-Break on Windows, reach the script without our help
    others = [number for number in STOPS if number.name not in ("SIGINT", "SIGBREAK")]
    before = {number: signal.signal(number, lambda n, _: process.send_signal(n)) for number in others}
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def time_is_up(options: argparse.Namespace) -> int:
    write_table(options)
    print("not all is done yet; run the same command again to continue", flush=True)
    return 128 + signal.SIGTERM


def write_table(options: argparse.Namespace) -> None:
    """Write ``results.md`` with the figures of all finished runs, and print it."""
    rows, means = [HEADS.split(" | ")], []
    for variant in VARIANTS:
        found = []
        for path in sorted(options.out.glob(f"modelnet40_{variant}_seed*/results.json")):
            facts = json.loads(path.read_text(encoding="utf-8"))
            found.append(facts["results"])
            rows.append(row(variant, facts, path.parent / "robustness" / "robustness.json"))
        for which in ("last", "selected"):
            runs = [results[which] for results in found if which in results]
            if len(runs) > 1:
                oa, macc = (mean_and_deviation(run[figure] for run in runs) for figure in ("OA", "mAcc"))
                means.append(f"- {variant}, {which}, {len(runs)} seeds: OA {oa}, mAcc {macc}")
    if len(rows) == 1:
        print("no run is finished yet")
        return
    note = "In percent, on the test split; minutes of training and selecting; OA corrupted: the mean over corruptions "
    note += "and severities of the selected weights. Means come with the standard deviation over seeds."
    text = "\n".join([*markdown(rows), "", *means, *([""] if means else []), note, ""])
    write_text(options.out / "results.md", text)
    print(f"{text}\nwritten: {options.out / 'results.md'}", flush=True)


def row(variant: str, facts: dict, robustness: Path) -> list[str]:
    corrupted = ""
    if robustness.exists():
        measured = json.loads(robustness.read_text(encoding="utf-8"))
        corrupted = f"{measured['mean_over_severities']['mean']['OA']:.2f}"
    figures = (facts["results"].get(which) for which in ("last", "selected"))
    reached = (
        f"{target}: {'never' if m is None else f'{m:.1f}'}" for target, m in facts["minutes_to"].items()
    )
    return [
        variant,
        str(facts["seed"]),
        *(f"{found['OA']:.2f} / {found['mAcc']:.2f}" if found else "" for found in figures),
        "" if facts["selected_epoch"] is None else str(facts["selected_epoch"]),
        f"{facts['minutes']:g}",
        ", ".join(reached),
        corrupted,
    ]


if __name__ == "__main__":
    sys.exit(main())
