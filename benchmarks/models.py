"""Time every model of the toolkit, in training and inference, and write docs/benchmarks.md.

python benchmarks/models.py                                  # sizes for a laptop's CPU
python benchmarks/models.py --full --device cuda             # 128×1,024, 32×2,048 and one cloud of 1 k to 1 M points
python benchmarks/models.py --only scaling --points 1024 16384 65536 --how eager --out scaling.md
python benchmarks/models.py --only memory --large 200000
python benchmarks/models.py --only throughput --models MY.yaml RUN pointmlp --no-write   # your models and another

Give your own models as config files, as for scripts/train_cls.py, or as folders of runs.

Every row runs in its own process, which isolates its peak memory. The rows of a field run in interleaved rounds, so
that other load on the machine affects all of them alike, and the tables hold medians. `reference` is the
straightforward eager form, which stores the similarities and both attention maps. The ratio in a row is its speed-up
over the reference of the same model, on the same inputs and with the same allocator setting.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from model_cases import (
    MODELS,
    PAIRED,
    Row,
    is_own,
    latency,
    memory,
    operations,
    own_config,
    scaling,
    throughput,
)
from model_report import Figures, exponents, plot, sizes_table, table
from pages import PAGE, origin, write

from bixt3d.errors import report_errors

WORKER = Path(__file__).with_name("model_worker.py")
PLOT = "benchmarks_models.svg"
SECTIONS = ("throughput", "scaling", "latency", "memory")
SECONDS_EACH = 30.0  # a row that has run this long skips further rounds, after at least two


class Worker:
    """A process that builds one row and runs it on request."""

    def __init__(self, row: Row, options: argparse.Namespace):
        self.row = row
        self.taken: list[float] = []
        told = {
            "row": row.arguments(),
            "device": options.device,
            "compile_mode": options.compile_mode,
            "default_allocator": options.default_allocator,
        }
        command = [sys.executable, str(WORKER), json.dumps(told)]
        pipe = subprocess.PIPE
        # A file and not a pipe: a pipe that is not read fills up and blocks the process.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True)
        self.failed: list[str] | None = None
        line = self._read()
        self.peak_mib = json.loads(line)["peak_mib"] if line else None

    def _read(self) -> str:
        """Return the next line of the process, or an empty string if the row has failed."""
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            self.process.communicate()
            self.errors.seek(0)
            self.failed = self.errors.read().strip().splitlines()[-1:]
        return line

    def run(self) -> None:
        if self.failed is not None or (len(self.taken) >= 2 and sum(self.taken) > SECONDS_EACH):
            return
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        if line := self._read():
            self.taken.append(float(line))

    def close(self) -> None:
        if self.failed is None:
            self.process.communicate()


def measure(rows: list[Row], options: argparse.Namespace) -> list[Figures]:
    workers = [Worker(row, options) for row in rows]
    for _ in range(options.rounds):
        for worker in workers:
            worker.run()
    figures = []
    for worker in workers:
        worker.close()
        if worker.failed is None:
            seconds, counted = statistics.median(worker.taken), operations(worker.row, options.device)
            rate = None if counted is None else counted / seconds / 1e9
            figures.append(Figures(worker.row, seconds, worker.peak_mib, rate))
        else:
            print(f"{worker.row}: could not run: {' '.join(worker.failed)}", file=sys.stderr)
    return figures


def shape(text: str) -> tuple[int, int]:
    clouds, _, points = text.partition("x")
    return int(clouds), int(points)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--full", action="store_true", help="use sizes for a data-centre GPU")
    made.add_argument("--quick", action="store_true", help="use sizes for a laptop (the default)")
    made.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    made.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL|CONFIG|RUN")
    made.add_argument(
        "--how",
        nargs="+",
        choices=("reference", "eager", "compiled"),
        default=["reference", "eager", "compiled"],
    )
    made.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    made.add_argument(
        "--inference", nargs="*", type=shape, metavar="BxN", help="batches for inference, clouds x points"
    )
    made.add_argument(
        "--training", nargs="*", type=shape, metavar="BxN", help="batches for training, clouds x points"
    )
    made.add_argument("--points", nargs="+", type=int, help="numbers of points in the scaling section")
    made.add_argument("--large", type=int, help="points of the large cloud in the memory section")
    made.add_argument("--chunk", type=int, default=8192, help="chunk in the memory section (default: 8192)")
    made.add_argument("--rounds", type=int, default=5, help="timed rounds (default: 5)")
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    made.add_argument("--compile-mode", default="default", help="mode of torch.compile")
    made.add_argument(
        "--default-allocator", action="store_true", help="keep the default setting of the C allocator"
    )
    made.add_argument("--out", type=Path, default=PAGE, help="page to write (default: docs/benchmarks.md)")
    made.add_argument("--no-write", action="store_true", help="only print the results")
    return made


def fill_sizes(options: argparse.Namespace) -> None:
    full = options.full
    defaults: dict[str, Any] = {
        "inference": [(128, 1024), (32, 2048)] if full else [(16, 1024)],
        "training": [(128, 1024), (32, 2048)] if full else [(8, 1024)],
        "points": [1024, 4096, 16_384, 65_536, 262_144, 1_000_000] if full else [1024, 4096, 16_384],
        "large": 1_000_000 if full else 65_536,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def main() -> None:
    options = parser().parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: expected a CUDA device, but torch sees none; leave it out.")
    options.models = [name if name in MODELS else own_config(name) for name in options.models]
    if any(map(is_own, options.models)) and options.out == PAGE and not options.no_write:
        raise ValueError(
            "--models: results of your own models need another page than docs/benchmarks.md; "
            "add --out FILE.md or --no-write."
        )
    fill_sizes(options)
    batches = {"inference": options.inference, "training": options.training}
    plans = {
        "throughput": lambda: throughput(options.models, options.how, batches, options.precision),
        "scaling": lambda: scaling(options.how, options.points, options.precision),
        "latency": lambda: latency(options.models),
        "memory": lambda: memory(options.large, 32 if options.full else 8, options.chunk),
    }
    lines: list[str] = []
    tables: dict[str, dict[str, list[Figures]]] = {}
    if "throughput" in options.only:
        lines += sizes_table(options.models)
        print("\n".join(lines), flush=True)
    for section in options.only:
        found = tables[section] = {}
        for title, rows in plans[section]():
            figures = measure(rows, options)
            found.setdefault(title, []).extend(figures)
            print("\n".join([title, "", *table(figures)]), flush=True)
        for title, figures in found.items():
            lines += [f"**{title}**", "", *table(figures)]
        if section == "scaling":
            said = exponents([f for figures in found.values() for f in figures])
            lines += ["Exponents of N:", "", *said] if said else []
            print("\n".join(said), flush=True)
    if options.no_write:
        return
    allocator = "the C library's default" if options.default_allocator else "told to keep freed memory"
    head = (
        f"{origin('models.py', options.device)} Medians of up to {options.rounds} interleaved rounds. Allocator: "
        f"{allocator}. `reference` is the eager form that stores the similarities and both attention maps (for "
        f"{', '.join(PAIRED)}). The two columns after the time are speed-ups over another row of the same table. "
        "Peak memory is the increase during a run, without weights and optimiser state."
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    grown = [f for figures in tables.get("scaling", {}).values() for f in figures]
    plot(tables.get("throughput", {}), grown, options.out.parent / PLOT)
    write(
        "models",
        "Whole models",
        "\n".join(["", head, "", f"![speed of the models]({PLOT})", "", *lines]),
        options.out,
    )


if __name__ == "__main__":
    report_errors(main)
