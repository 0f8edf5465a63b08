"""Draw one procedural shape under every corruption: ``python scripts/show_corruptions.py --out corruptions.png``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bixt3d.errors import report_errors


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--out", type=Path, default=Path("corruptions.png"), help="the PNG to write")
    made.add_argument("--category", default="chair", help="class of the shape (default: chair)")
    made.add_argument("--severity", type=int, default=3, help="1 to 5 (default: 3)")
    made.add_argument("--points", type=int, default=1024, help="points of the shape (default: 1024)")
    made.add_argument("--seed", type=int, default=0, help="of shape and corruptions")
    return made


def main(arguments: list[str] | None = None) -> int:
    return report_errors(lambda: draw(parser().parse_args(arguments)))


def draw(options: argparse.Namespace) -> int:
    import torch

    from bixt3d.datasets import Shapes
    from bixt3d.datasets.corruptions import CORRUPTIONS, corrupt_each
    from bixt3d.evaluation.robustness_plots import plot_clouds

    shapes = Shapes(num_points=options.points, num_test=len(Shapes().classes), seed=options.seed)
    if options.category not in shapes.classes:
        raise ValueError(
            f"--category: unknown value {options.category!r}, expected one of {', '.join(shapes.classes)}."
        )
    clouds = shapes.load("test")
    which = shapes.classes.index(options.category)  # cloud i is of class i
    cloud = torch.from_numpy(clouds.points[which : which + 1])
    shown = {f"as it is ({cloud.shape[1]:,} points)": cloud[0]}
    for name, make in CORRUPTIONS.items():
        corrupted = corrupt_each(make(options.severity), cloud, [which], options.seed)[0]
        shown[f"{name} ({len(corrupted):,})"] = corrupted
    plot_clouds(shown, options.out)
    print(f"saved {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
