"""Plot the curves of one or more finished or running runs in one picture, or compare the runs in a table.

python scripts/plot_runs.py RUN [NAME=RUN ...] [--out curves.png] [--against step|epoch|minutes]
python scripts/plot_runs.py RUN [NAME=RUN ...] --table runs.md

RUN is the folder of a run, and NAME its name in legend and table (by default that of the folder). The table, .csv or
.md, has a row per run with its seed, the settings that differ, parameters, operations, minutes, speed, memory and
figures. Settings with several seeds also get rows with their mean and their difference to the settings of the first
run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bixt3d.errors import report_errors


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", nargs="+", metavar="[NAME=]RUN")
    made.add_argument(
        "--out", type=Path, help="PNG file to write (default: curves.png, or none if --table is given)"
    )
    made.add_argument("--table", type=Path, metavar="FILE", help="table to write, .csv or .md")
    made.add_argument(
        "--against",
        choices=("step", "epoch", "minutes"),
        default="epoch",
        help="x-axis of the figures (default: epoch)",
    )
    made.add_argument("--title", default="", help="title of the picture")
    return made


def main(arguments: list[str] | None = None) -> int:
    return report_errors(lambda: work(parser().parse_args(arguments)))


def work(options: argparse.Namespace) -> int:
    folders = dict(map(named, options.runs))
    if len(folders) < len(options.runs):
        raise ValueError("two runs have the same name; give them different names with NAME=RUN.")
    if options.table is not None:
        from bixt3d.training.run_table import read_run, write_table

        write_table([read_run(name, folder) for name, folder in folders.items()], options.table)
        print(f"saved {options.table}")
    if options.table is None or options.out is not None:
        from bixt3d.training.curves import draw_curves, read_curves

        out = options.out or Path("curves.png")
        runs = {name: read_curves(folder) for name, folder in folders.items()}
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_curves(runs, out, title=options.title, against=options.against)
        print(f"saved {out}")
    return 0


def named(given: str) -> tuple[str, Path]:
    """Split NAME=RUN at an ``=`` before an existing folder, since names and folders may contain one themselves."""
    if not Path(given).is_dir():
        signs = [i for i, letter in enumerate(given) if letter == "="]
        for i in [i for i in signs if Path(given[i + 1 :]).is_dir()] or signs[:1]:
            return given[:i], Path(given[i + 1 :])
    return Path(given).resolve().name, Path(given)


if __name__ == "__main__":
    sys.exit(main())
