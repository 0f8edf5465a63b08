"""Export the model of a checkpoint to ONNX or torch.export.

python scripts/export.py CHECKPOINT model.onnx      # models without grouping, for onnxruntime and others
python scripts/export.py CHECKPOINT model.pt2       # every model, for torch.export.load

The exported model takes any number of clouds and points. The file is loaded and compared with the model. Its metadata
lists the classes and describes how to normalise a cloud.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bixt3d.errors import report_errors


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a best.pt or last.pt, or a run folder (its last.pt)")
    parser.add_argument("out", type=Path, help="FILE.onnx or FILE.pt2")
    parser.add_argument(
        "--trust-code", action="store_true", help="let the checkpoint name code outside the toolkit"
    )
    options = parser.parse_args(arguments)
    return report_errors(lambda: export(options.checkpoint, options.out, options.trust_code))


def export(checkpoint: Path, out: Path, trust_code: bool) -> int:
    import torch

    from bixt3d.inference.export import INSTALL, export_checkpoint
    from bixt3d.training.allocator import keep_freed_memory

    keep_freed_memory()
    done = export_checkpoint(checkpoint, out, trust_code=trust_code)
    print(f"{done.path}: {done.metadata['name']}, {done.path.stat().st_size / 2**20:.1f} MiB")
    if done.difference is None:
        print(f"not checked, because onnxruntime is not installed ({INSTALL})")
    else:
        print(f"largest difference of the logits on two other sizes: {done.difference:.1e}")
    if done.seconds is not None:
        file, model = done.seconds
        clouds, points = done.batch
        print(
            f"{clouds} clouds of {points} points, {torch.get_num_threads()} thread(s), medians in turn: onnxruntime "
            f"{1000 * file:.1f} ms, torch {1000 * model:.1f} ms; torch takes {model / file:.2f} times as long"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
