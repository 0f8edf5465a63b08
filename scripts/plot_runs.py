"""Draw the curves of one or more runs into one picture, also while they run.

python scripts/plot_runs.py RUN [NAME=RUN ...] [--out curves.png] [--against step|epoch|minutes]

RUN is the folder of a run; NAME is what the legend calls it (the folder's name by default).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bixt3d.errors import report_errors


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", nargs="+", metavar="[NAME=]RUN")
    made.add_argument("--out", type=Path, default=Path("curves.png"), help="the PNG to write")
    made.add_argument(
        "--against", choices=("step", "epoch", "minutes"), default="epoch", help="default: epoch"
    )
    made.add_argument("--title", default="", help="line above")
    return made


def main(arguments: list[str] | None = None) -> int:
    return report_errors(lambda: draw(parser().parse_args(arguments)))


def draw(options: argparse.Namespace) -> int:
    from bixt3d.training.curves import draw_curves, read_curves

    named = [given.rpartition("=")[::2] for given in options.runs]
    runs = {name or Path(folder).resolve().name: read_curves(folder) for name, folder in named}
    if len(runs) < len(named):
        raise ValueError("two runs have the same name; give them others with NAME=RUN.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(runs, options.out, title=options.title, against=options.against)
    print(f"saved {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
