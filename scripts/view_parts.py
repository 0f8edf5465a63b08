"""View predicted parts in a window, as a picture or as a page for any browser.

python scripts/view_parts.py CHECKPOINT FILES...                          # a window; labels in files are the truth
python scripts/view_parts.py CHECKPOINT --split test --index 0 12 40      # shapes of its data set, with the truth
python scripts/view_parts.py CHECKPOINT FILES... --save parts.png         # a picture, no display needed
python scripts/view_parts.py CHECKPOINT FILES... --save parts.html        # a page, turned with the mouse
python scripts/view_parts.py CHECKPOINT FILES... --attention 0 5 9        # what these latents attend to

Keys in the window: N and P for the next and previous shape; 1, 2, 3 for prediction, ground truth and errors; + and -
for the point size; S for a screenshot; R for the front view; Q to close. Attention works with a classifier too. A file
that cannot be used is reported and skipped, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bixt3d.errors import report_errors
from bixt3d.options import add_prediction_options, loading_options


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_prediction_options(made, files="*")
    made.add_argument(
        "--split", choices=("train", "val", "test"), help="view shapes of the checkpoint's data set instead"
    )
    made.add_argument("--index", type=int, nargs="+", help="indices of the shapes (default: the first 6)")
    made.add_argument("--data-root", help="folder of that data set, if it has moved since training")
    made.add_argument("--save", type=Path, help="write FILE.png or FILE.html instead of opening a window")
    made.add_argument(
        "--attention", type=int, nargs="+", metavar="L", help="colour by what latent L attends to"
    )
    made.add_argument("--layer", type=int, help="layer of the attention (default: the last)")
    made.add_argument("--size", type=int, help="width of a view in a .png, in pixels (default: 360)")
    return made


def main(arguments: list[str] | None = None) -> int:
    return report_errors(lambda: view(parser().parse_args(arguments)))


def view(options: argparse.Namespace) -> int:
    from bixt3d.inference.batch_prediction import check_samples
    from bixt3d.inference.loading import load
    from bixt3d.inference.showing import scenes_of_files, scenes_of_split
    from bixt3d.io.finding import find_files
    from bixt3d.io.writing import check_file
    from bixt3d.viewer.pictures import check_display, import_open3d, save_png

    kind = None if options.save is None else options.save.suffix.lower()
    check_options(options, kind)
    choices = loading_options(options)
    if options.save is not None:
        check_file(options.save)
    # fail before any computation if the result cannot be shown
    if kind is None:
        check_display()
    if kind != ".html":
        import_open3d()
    check_samples(options.samples)
    files = find_files(options.files)
    predictor = load(options.checkpoint, **choices)
    layer = -1 if options.layer is None else options.layer
    shown = {"category": options.category, "attention": options.attention, "layer": layer}
    failed = []

    def report(message: str) -> None:
        failed.append(message)
        print(f"error: {message}", file=sys.stderr)

    if options.split:
        scenes = scenes_of_split(predictor, options.split, options.index, options.data_root, **shown)
    else:
        scenes = scenes_of_files(
            predictor, files, up=options.up, samples=options.samples, report=report, **shown
        )
    if not scenes:
        raise ValueError("nothing to show, since none of the files can be used.")
    if kind == ".png":
        save_png(options.save, scenes, size=options.size or 360)
    elif kind == ".html":
        from bixt3d.viewer.page import write_page

        write_page(options.save, scenes, title=f"bixt3d: {options.checkpoint}")
    else:
        from bixt3d.viewer.window import show

        show(scenes)
    if options.save is not None:
        print(f"saved {options.save}")
    return 1 if failed else 0


def check_options(options: argparse.Namespace, kind: str | None) -> None:
    """Raise a ValueError for options that conflict or have no effect; ``kind`` is the suffix of ``--save``."""
    if bool(options.files) == bool(options.split):
        raise ValueError("expected either FILES or --split, got both or neither.")
    if options.split and options.up:
        raise ValueError(
            "--up: is for FILES; leave it out with --split, since a data set is turned as in training (data.up)."
        )
    if options.split and options.samples is not None:
        raise ValueError("--samples: is for meshes among FILES; leave it out with --split.")
    if options.files and (options.index is not None or options.data_root is not None):
        raise ValueError("--index, --data-root: are for --split; leave them out with FILES.")
    if kind not in (None, ".html", ".png"):
        raise ValueError(f"--save: unknown format {kind!r}, expected one of .html, .png.")
    if options.size is not None and kind != ".png":
        raise ValueError("--size: is for pictures; leave it out, or save one with --save FILE.png.")
    if options.size is not None and options.size < 1:
        raise ValueError(f"--size: expected at least 1, got {options.size}.")
    if options.layer is not None and options.attention is None:
        raise ValueError("--layer: is for --attention; leave it out, or name latents with --attention.")


if __name__ == "__main__":
    sys.exit(main())
