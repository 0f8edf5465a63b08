"""Command-line options shared by the scripts that predict files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_prediction_options(parser: argparse.ArgumentParser, *, files: str) -> None:
    """Add the options for the checkpoint, the files to predict and how to read them.

    Args:
        parser: the parser to extend. ``up`` and ``samples`` are None if not given.
        files: ``nargs`` of the files: ``"+"`` or ``"*"``.
    """
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="a best.pt or last.pt, a run folder (its last.pt), or a .safetensors file",
    )
    parser.add_argument("files", nargs=files, help="files, folders or glob patterns")
    parser.add_argument("--category", help="part segmentation: class of all clouds")
    parser.add_argument(
        "--classifier", type=Path, help="part segmentation: checkpoint that predicts the class of each cloud"
    )
    parser.add_argument(
        "--up",
        choices=("x", "y", "z"),
        help="up axis of the files (default: data.up of training, or y)",
    )
    parser.add_argument("--samples", type=int, help="points to sample from a mesh (default: 10000)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed for sampling points from large clouds and meshes (default: 0)",
    )
    parser.add_argument("--drop-strays", action="store_true", help="drop points that lie far from all others")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a CUDA device if there is one)")
    parser.add_argument(
        "--trust-code", action="store_true", help="allow the checkpoint to name code outside the toolkit"
    )


def loading_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments for :func:`bixt3d.inference.loading.load`, without the checkpoint.

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
