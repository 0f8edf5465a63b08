"""Find the files of clouds that folders and patterns hold."""

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

# What scripts/predict.py writes. A search passes such names over; a file that is named itself is read.
RESULTS = (
    "*_parts.npz",
    "*_parts.ply",
    "*_parts.png",
    "predictions.csv",
    "predictions.json",
    "predictions_rank*.*",
)


# Formats of clouds and meshes that are not read, and what makes a .ply of them.
CONVERTERS = {
    **dict.fromkeys((".e57", ".ptx"), "CloudCompare"),
    **dict.fromkeys((".3ds", ".3mf", ".dae", ".fbx"), "open3d, MeshLab or Blender"),
}


def find_files(arguments: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List the files that arguments name, each once, in order.

    Args:
        arguments: files, folders (searched to any depth for known formats, through links as well) or glob patterns.
            In folders and patterns, results of earlier predictions (:data:`RESULTS`) are passed over, in folders
            other formats of clouds (:data:`CONVERTERS`) as well; how many is said.

    Raises:
        ValueError: a folder or a pattern holds nothing to read, or a folder cannot be searched.
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
            found.setdefault(_place(argument), Path(argument))  # who reads it says if it is not there
            continue
        inputs = [p for p in matches if not any(fnmatchcase(p.name, pattern) for pattern in RESULTS)]
        if not inputs:
            but = " but results of earlier predictions" if matches else ""
            but += f" ({_passed_over(here)})" if here else ""
            raise ValueError(
                f"{argument}: nothing to read here{but}; expected files of {', '.join(FORMATS)}."
            )
        results.update(set(matches) - set(inputs))
        others |= here
        for path in inputs:
            found.setdefault(_place(path), path)
    if results:
        logger.warning(
            "results of earlier predictions are passed over: %d (%s); name a file itself to have it read",
            len(results),
            ", ".join(RESULTS),
        )
    if others:
        logger.warning("%s", _passed_over(others))
    return list(found.values())


def _passed_over(files: Collection[Path]) -> str:
    counts = Counter(file.suffix.lower() for file in files).most_common()
    return (
        f"passed over {len(files)} file{'s' if len(files) > 1 else ''} of other formats: "
        f"{', '.join(f'{suffix} ({count})' for suffix, count in counts)}"
    )


def _inside(folder: str) -> list[Path]:
    """List the files of a folder and of those in it, links followed; a folder met again is passed over."""

    def fail(error: OSError) -> None:
        raise ValueError(
            f"{error.filename}: cannot be searched ({error.strerror}); name the folders beside it instead."
        ) from error

    files, seen = [], {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        files += [Path(place, name) for name in names if not name.startswith(".")]
        # the links last, so that a folder is found under its own name where both are side by side
        inside = sorted(folders, key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        folders.clear()
        for name in inside:
            real = os.path.realpath(os.path.join(place, name))
            if real not in seen:
                seen.add(real)
                folders.append(name)
    return [path for path in sorted(files) if path.is_file()]


def _place(path: str | os.PathLike[str]) -> Path:
    """Return what tells files apart: the folder a file really is in, and its name."""
    return Path(os.path.realpath(Path(path).parent), Path(path).name)
