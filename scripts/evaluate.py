"""Measure a checkpoint, on clean clouds or on corrupted ones.

python scripts/evaluate.py CHECKPOINT [split=test] [out=DIR] [key=value ...]
python scripts/evaluate.py CHECKPOINT corruption=all points=all [severity=1,2,3,4,5] [seed=0] [out=DIR] [key=value ...]

CHECKPOINT is a best.pt or last.pt, a run folder, or a .safetensors file of scripts/publish.py; key=value changes its
config, such as data.root=DIR. docs/robustness.md says what the corruptions are.
"""

import sys

from bixt3d.errors import report_errors
from bixt3d.evaluation import evaluate_checkpoint, evaluate_robustness

ROBUSTNESS = {"corruption", "points", "seed", "severity"}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    checkpoint, *assignments = sys.argv[1:]
    out = next((a.removeprefix("out=") for a in assignments if a.startswith("out=")), None)
    rest = [a for a in assignments if not a.startswith("out=")]
    corrupted = ROBUSTNESS & {a.partition("=")[0] for a in rest}
    measure = evaluate_robustness if corrupted else evaluate_checkpoint
    report_errors(lambda: measure(checkpoint, rest, out))


if __name__ == "__main__":
    main()
