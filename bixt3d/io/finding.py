"""Find point cloud files in folders and by glob patterns."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from bixt3d.io.reading import FORMATS

logger = logging.getLogger(__name__)

# Files that scripts/predict.py writes. A search skips such names; a file that is named explicitly is read.
RESULTS = (
    "*_parts.npz",
    "*_parts.ply",
    "*_parts.png",
    "predictions.csv",
    "predictions.json",
    "predictions_rank*.*",
)


# Formats of clouds and meshes that are not supported, and programs that convert them to .ply.
CONVERTERS = {
    **dict.fromkeys((".e57", ".ptx"), "CloudCompare"),
    **dict.fromkeys((".3ds", ".3mf", ".dae", ".fbx"), "open3d, MeshLab or Blender"),
}


def find_files(arguments: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List the files that arguments refer to, each once, in order.

    Args:
        arguments: files, folders or glob patterns. Folders are searched recursively for known formats, following
            links. In folders and patterns, results of earlier predictions (:data:`RESULTS`) are skipped, and in
            folders also other formats of clouds (:data:`CONVERTERS`); a warning gives their number.

    Returns:
        The paths. Whether files that were named explicitly exist is not checked.

    Raises:
        ValueError: a folder or a pattern has no files to read, or a folder cannot be searched.
    """
    found: dict[Path, Path] = {}
    results: set[Path] = set()
    others: set[Path] = set()
    for argument in map(str, arguments):
        here: set[Path] = set()
        if Path(argument).is_dir():
            inside = _inside(argument)
            matches = [p for p in inside if p.suffix.lower() in FORMATS]
            here = {_place(p) for p in inside if p.suffix.lower() in CONVERTERS}
        elif glob.has_magic(argument) and not Path(argument).exists():
            matches = [Path(p) for p in sorted(glob.glob(argument, recursive=True)) if Path(p).is_file()]
        else:
            found.setdefault(_place(argument), Path(argument))  # the reader reports a missing file
            continue
        inputs = [p for p in matches if not any(fnmatchcase(p.name, pattern) for pattern in RESULTS)]
        if not inputs:
            but = " but results of earlier predictions" if matches else ""
            but += f" ({_skipped(here)})" if here else ""
            raise ValueError(
                f"{argument}: nothing to read here{but}; expected files of {', '.join(FORMATS)}."
            )
        results.update(set(matches) - set(inputs))
        others |= here
        for path in inputs:
            found.setdefault(_place(path), path)
    if results:
        logger.warning(
            "skipped results of earlier predictions: %d (%s); to read such a file, name it explicitly",
            len(results),
            ", ".join(RESULTS),
        )
    if others:
        logger.warning("%s", _skipped(others))
    return list(found.values())


def _skipped(files: Collection[Path]) -> str:
    counts = Counter(file.suffix.lower() for file in files).most_common()
    return (
        f"skipped {len(files)} file{'s' if len(files) > 1 else ''} of other formats: "
        f"{', '.join(f'{suffix} ({count})' for suffix, count in counts)}"
    )


def _inside(folder: str) -> list[Path]:
    """List the files in a folder and its subfolders, following links; each folder is visited once."""

    def fail(error: OSError) -> None:
        raise ValueError(
            f"{error.filename}: cannot be searched ({error.strerror}); name the folders beside it instead."
        ) from error

    files, seen = [], {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        files += [Path(place, name) for name in names if not name.startswith(".")]
        # links last, so that a folder with a link beside it is found under its own name
        inside = sorted(folders, key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        folders.clear()
        for name in inside:
            real = os.path.realpath(os.path.join(place, name))
            if real not in seen:
                seen.add(real)
                folders.append(name)
    return [path for path in sorted(files) if path.is_file()]


def _place(path: str | os.PathLike[str]) -> Path:
    """Return a path that identifies a file: its folder with links resolved, and its name."""
    return Path(os.path.realpath(Path(path).parent), Path(path).name)
