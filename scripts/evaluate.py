"""Measure a checkpoint, on clean clouds or on corrupted ones.

python scripts/evaluate.py CHECKPOINT [split=test] [out=DIR] [key=value ...]
python scripts/evaluate.py CHECKPOINT corruption=all points=all [severity=1,2,3,4,5] [seed=0] [out=DIR] [key=value ...]

CHECKPOINT is a best.pt or last.pt, a run folder, or a .safetensors file of scripts/publish.py; key=value changes its
config, such as data.root=DIR. docs/robustness.md says what the corruptions are.
"""

import sys

from bixt3d.errors import report_errors
from bixt3d.evaluation import evaluate_checkpoint, evaluate_robustness
from bixt3d.robustness import RobustnessPlan

ROBUSTNESS = {"corruption", "points", "seed", "severity"}
OWN = {"split", "drop_strays", "out"} | ROBUSTNESS


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    checkpoint, *assignments = sys.argv[1:]
    own = {key: value for key, _, value in (a.partition("=") for a in assignments) if key in OWN}
    overrides = [a for a in assignments if a.partition("=")[0] not in own]
    report_errors(lambda: measure(checkpoint, own, overrides))


def measure(checkpoint: str, own: dict[str, str], overrides: list[str]) -> None:
    """Measure what the command line asks for."""
    drop = own.get("drop_strays", "false")
    if drop not in ("false", "true"):
        raise ValueError(f"drop_strays: expected true or false, got {drop!r}.")
    options = {"split": own.get("split", "test"), "drop_strays": drop == "true", "out": own.get("out")}
    if ROBUSTNESS & own.keys():
        evaluate_robustness(checkpoint, RobustnessPlan.parse(own), overrides, **options)
    else:
        evaluate_checkpoint(checkpoint, overrides, **options)


if __name__ == "__main__":
    main()
