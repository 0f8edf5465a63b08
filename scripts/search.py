"""Compare named settings on the validation split: ``python scripts/search.py cfgs/search/naive.yaml data.root=DIR``.

python scripts/search.py SEARCH.yaml [key=value ...] [--out DIR]     # default: runs/search/NAME of the file

Every setting is an ordinary training run at each of the seeds; the test split is not looked at. Hydra's own
``--multirun`` runs a grid; this adds settings of several overrides with a name, the same seeds for all and
differences paired by seed, going on where it was broken off, and one table (results.md, results.csv) that is
written after every run. Stop it with Ctrl-C; the same command continues. Further key=value hold for every run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bixt3d.errors import report_errors
from bixt3d.training.search import check_search, read_search, run_search

HERE = Path(__file__).resolve().parent
CONFIG_ROOT = HERE.parent / "cfgs"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("search", type=Path, help="YAML file with base, seeds, common and settings")
    made.add_argument("overrides", nargs="*", metavar="key=value", help="of every run, such as data.root=DIR")
    made.add_argument("--out", type=Path, help="folder of runs and tables (default: runs/search/NAME)")
    return made


def search(options: argparse.Namespace) -> int:
    out = options.out or Path("runs/search") / options.search.stem
    definition = read_search(options.search, options.overrides, config_root=CONFIG_ROOT)
    check_search(definition, out, config_root=CONFIG_ROOT)
    return run_search(definition, out, script=HERE / "train_cls.py")


if __name__ == "__main__":
    sys.exit(report_errors(lambda: search(parser().parse_intermixed_args())))
