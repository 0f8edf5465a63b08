"""Options that the scripts have in common which predict files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_prediction_options(parser: argparse.ArgumentParser, *, files: str) -> None:
    """Add what says which checkpoint predicts which files, and how they are read.

    Args:
        parser: gets the options; ``up`` and ``samples`` are None where they are not given.
        files: how many files there have to be: ``"+"`` or ``"*"``.
    """
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="a best.pt or last.pt, a run folder (its last.pt), or a .safetensors file",
    )
    parser.add_argument("files", nargs=files, help="files, folders or patterns")
    parser.add_argument("--category", help="class of all clouds, for parts")
    parser.add_argument(
        "--classifier", type=Path, help="checkpoint that says the class of each cloud, for parts"
    )
    parser.add_argument(
        "--up",
        choices=("x", "y", "z"),
        help="axis that is up in the files (default: data.up of training, or y)",
    )
    parser.add_argument("--samples", type=int, help="points to draw from a mesh (default: 10000)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw of points from large clouds and meshes (default: 0)"
    )
    parser.add_argument(
        "--drop-strays", action="store_true", help="leave out points that lie far from all others"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a CUDA device where there is one)")
    parser.add_argument(
        "--trust-code", action="store_true", help="let the checkpoint name code outside the toolkit"
    )


def loading_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return what :func:`bixt3d.inference.loading.load` takes of these options, the checkpoint besides.

    Raises:
        ValueError: both ``--category`` and ``--classifier`` are given.
    """
    if options.category is not None and options.classifier is not None:
        raise ValueError(
            "--category, --classifier: expected at most one of them, since either says the class."
        )
    return {
        name: getattr(options, name) for name in ("classifier", "seed", "drop_strays", "device", "trust_code")
    }
