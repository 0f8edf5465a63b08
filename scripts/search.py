"""Compare named settings on the validation split: ``python scripts/search.py cfgs/search/naive.yaml data.root=DIR``.

python scripts/search.py SEARCH.yaml [key=value ...] [--out DIR]     # default: runs/search/NAME of the file

Every setting is trained with each of the seeds, in ordinary training runs. The test split is not used. Unlike Hydra's
``--multirun``, which runs a grid, a setting is a named set of overrides, all settings have the same seeds, and
differences are paired by seed. A table of the results (results.md, results.csv) is written after every run. Stop the
search with Ctrl-C; the same command continues it. Overrides (key=value) apply to every run.
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
    made.add_argument(
        "overrides", nargs="*", metavar="key=value", help="overrides of every run, such as data.root=DIR"
    )
    made.add_argument("--out", type=Path, help="folder for runs and tables (default: runs/search/NAME)")
    return made


def search(options: argparse.Namespace) -> int:
    out = options.out or Path("runs/search") / options.search.stem
    definition = read_search(options.search, options.overrides, config_root=CONFIG_ROOT)
    check_search(definition, out, config_root=CONFIG_ROOT)
    return run_search(definition, out, script=HERE / "train_cls.py")


if __name__ == "__main__":
    sys.exit(report_errors(lambda: search(parser().parse_intermixed_args())))
