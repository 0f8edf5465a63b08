"""Write a checkpoint's weights as one .safetensors file, with a model card beside it.

python scripts/publish.py RUN/best.pt weights --name modelnet40_hierarchy
python scripts/publish.py RUN/last.pt weights --dtype float32 --robustness DIR/robustness.json

scripts/predict.py, scripts/evaluate.py and scripts/view_parts.py accept the file as a checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bixt3d.config import to_yaml
from bixt3d.errors import report_errors


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("checkpoint", type=Path, help="a best.pt or last.pt in its run folder")
    made.add_argument("out", type=Path, help="folder for NAME.safetensors and NAME.md")
    made.add_argument("--name", help="name of the weights (default: that of the config)")
    made.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="data type of matrices (default: bfloat16)",
    )
    made.add_argument(
        "--max-mb", type=float, default=16.0, help="maximum size of the file, in megabytes (default: 16)"
    )
    made.add_argument(
        "--robustness", type=Path, help="robustness.json written by scripts/evaluate.py, for the card"
    )
    made.add_argument("--note", help="a sentence about the training data, for the card")
    made.add_argument(
        "--trust-code", action="store_true", help="let the checkpoint name code outside the toolkit"
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    return report_errors(lambda: publish(parser().parse_args(arguments)))


def publish(options: argparse.Namespace) -> int:
    from bixt3d.checkpoint import load_checkpoint
    from bixt3d.inference.loading import read_config
    from bixt3d.io.writing import write_text
    from bixt3d.model_card import gather_facts, public_config, write_card
    from bixt3d.weights import save_weights

    content = load_checkpoint(options.checkpoint)
    if "facts" in content:
        raise ValueError(
            f"{options.checkpoint}: is published already; expected a best.pt or last.pt of a run."
        )
    config = public_config(read_config(content, options.checkpoint, trust_code=options.trust_code))
    facts = gather_facts(options.checkpoint, content, options.robustness)
    name = options.name or config["name"]
    path = options.out / f"{name}.safetensors"
    size = save_weights(
        path,
        {**content, "config": to_yaml(config)},
        facts,
        dtype=options.dtype,
        max_bytes=int(options.max_mb * 1_000_000),
    )
    card = write_card(
        name,
        config,
        content["classes"],
        content.get("parts", ()),
        facts,
        dtype=options.dtype,
        size=size,
        note=options.note,
    )
    write_text(path.with_suffix(".md"), card)
    print(f"written: {path} ({size:,} bytes), {path.with_suffix('.md')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
