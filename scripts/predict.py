"""Predict the classes or the parts of your own clouds and meshes with a checkpoint.

python scripts/predict.py CHECKPOINT FILES...                  # files, folders, 'quoted/patterns/*.ply'
python scripts/predict.py CHECKPOINT FILES... --out results --png
python scripts/predict.py SEGMENTER FILES... --category chair
python scripts/predict.py SEGMENTER FILES... --classifier CLASSIFIER
torchrun --nproc_per_node=4 scripts/predict.py CHECKPOINT FILES...

A classifier writes the five most probable classes of each file to predictions.csv and predictions.json. A segmenter
writes predictions.csv and, for each file, FILE_parts.ply (coloured) and FILE_parts.npz (points, labels, names,
probabilities). With up to ten files, the results are also printed. A file that cannot be used is reported and skipped,
and the exit status is then 1. Ctrl-C and SIGTERM end the run after the current files, with a summary of those that are
done and exit status 130 or 143. A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bixt3d.errors import report_errors
from bixt3d.options import add_prediction_options, loading_options
from bixt3d.training.allocator import keep_freed_memory

FEW = 10  # up to this number of files, each result is printed


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_prediction_options(made, files="+")
    made.add_argument(
        "--out", type=Path, default=Path("predictions"), help="output folder (default: predictions)"
    )
    made.add_argument("--png", action="store_true", help="also write a picture of the parts (needs open3d)")
    made.add_argument("--batch-size", type=int, default=16, help="forward passes per batch (default: 16)")
    made.add_argument(
        "--precision", default="32-true", help="32-true, bf16-mixed or 16-mixed (default: 32-true)"
    )
    made.add_argument(
        "--compile", action="store_true", help="compile the model first (faster for PointMLP on a CPU)"
    )
    return made


def main(arguments: list[str] | None = None) -> int:
    return report_errors(lambda: predict(parser().parse_args(arguments)))


def predict(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import track

    from bixt3d.inference.batch_prediction import BatchPredictor, output_stems
    from bixt3d.inference.loading import load
    from bixt3d.io.finding import find_files
    from bixt3d.training.signals import StopRequest

    choices = loading_options(options)
    keep_freed_memory()
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    files = find_files(options.files)
    stems = output_stems(files)
    few = len(files) <= FEW
    files, stems = files[rank::world_size], stems[rank::world_size]
    if choices["device"] is None and world_size > 1:
        import torch

        if torch.cuda.is_available():
            choices["device"] = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    predictor = load(
        options.checkpoint,
        batch_size=options.batch_size,
        precision=options.precision,
        compile=options.compile,
        **choices,
    )
    stop = StopRequest()
    console = Console(stderr=True)  # standard output is reserved for the result
    batch = BatchPredictor(
        predictor,
        options.out,
        category=options.category,
        samples=options.samples,
        png=options.png,
        up=options.up,
        report=lambda message: console.print(
            f"error: {message}", highlight=False, markup=False, soft_wrap=True
        ),
        stop=lambda: stop.requested is not None,
    )
    with stop:
        try:
            steps = batch.run(files, stems)
            for file in track(
                steps,
                "Predicting",
                total=len(files),
                console=console,
                transient=True,
                disable=few or not console.is_terminal,  # few files print a line each instead
            ):
                answer = batch.answer(file) if few else ""
                if answer:
                    print(answer, flush=True)
        except KeyboardInterrupt:  # a second Ctrl-C
            pass
        finally:  # keep what is done, however the run ended
            written = batch.write_summary(files, f"_rank{rank}" if world_size > 1 else "")
    done = len(batch.rows) - batch.failed
    what = "parts" if predictor.parts else "classes"
    where = ", ".join(map(str, written)) or f"no table was written to {options.out}"
    print(f"{'stopped; ' if stop.requested else ''}{what} of {done} of {len(files)} files: {where}")
    if stop.requested:
        return 128 + stop.requested
    return 1 if batch.failed else 0


if __name__ == "__main__":
    sys.exit(main())
