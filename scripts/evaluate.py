"""Measure a checkpoint: ``python scripts/evaluate.py CHECKPOINT [split=test] [out=DIR] [key=value ...]``."""

import sys

from bixt3d.config import report_errors
from bixt3d.experiment import evaluate_checkpoint


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    checkpoint, *assignments = sys.argv[1:]
    out = next((a.removeprefix("out=") for a in assignments if a.startswith("out=")), None)
    rest = [a for a in assignments if not a.startswith("out=")]
    report_errors(lambda: evaluate_checkpoint(checkpoint, rest, out))


if __name__ == "__main__":
    main()
