"""Evaluate a checkpoint on clean or on corrupted clouds.

python scripts/evaluate.py CHECKPOINT [split=test] [out=DIR] [votes=10 [seed=0]] [key=value ...]
python scripts/evaluate.py CHECKPOINT corruption=all points=all [severity=1,2,3,4,5] [seed=0] [out=DIR] [key=value ...]

CHECKPOINT is a best.pt or last.pt, a run folder (its last.pt), or a .safetensors file written by scripts/publish.py.
key=value overrides its config, such as data.root=DIR. trust_code=true lets the checkpoint's config name code outside
the toolkit. out=DIR writes tables; for a classifier, these include predictions.csv with a row for each cloud. votes=10
also reports a separate result for the mean over ten stretched copies of each cloud. drop_strays=true leaves out stray
points. docs/robustness.md describes the corruptions.
"""

import sys
from typing import Any

from bixt3d.errors import report_errors
from bixt3d.evaluation.evaluate import evaluate_checkpoint, evaluate_robustness
from bixt3d.evaluation.robustness import RobustnessPlan

ROBUSTNESS = {"corruption", "points", "severity"}
SWITCHES = ("drop_strays", "trust_code")
OWN = {"split", "out", "seed", "votes", *SWITCHES} | ROBUSTNESS


def main() -> None:
    if len(sys.argv) < 2 or {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    checkpoint, *assignments = sys.argv[1:]
    own = {key: value for key, _, value in (a.partition("=") for a in assignments) if key in OWN}
    overrides = [a for a in assignments if a.partition("=")[0] not in own]
    report_errors(lambda: measure(checkpoint, own, overrides))


def measure(checkpoint: str, own: dict[str, str], overrides: list[str]) -> None:
    """Run the evaluation that the options ask for."""
    options: dict[str, Any] = {"split": own.get("split", "test"), "out": own.get("out")}
    for switch in SWITCHES:
        given = own.get(switch, "false")
        if given not in ("false", "true"):
            raise ValueError(f"{switch}: expected true or false, got {given!r}.")
        options[switch] = given == "true"
    corrupted = ROBUSTNESS & own.keys()
    if corrupted and "votes" in own:
        raise ValueError("votes: are for clean clouds; leave out corruption, points and severity.")
    if corrupted or ("seed" in own and "votes" not in own):
        evaluate_robustness(checkpoint, RobustnessPlan.parse(own), overrides, **options)
    else:
        options |= {name: whole_number(name, own[name]) for name in ("votes", "seed") if name in own}
        evaluate_checkpoint(checkpoint, overrides, **options)


def whole_number(name: str, text: str) -> int:
    """Parse the value of an option as a whole number."""
    if not text.isdecimal():
        raise ValueError(f"{name}: expected a whole number, got {text!r}.")
    return int(text)


if __name__ == "__main__":
    main()
