"""Part names and part labels of clouds in a folder tree."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from bixt3d.io import LABEL_NAMES, Cloud

LISTING = "part_names.txt"


def read_names(root: Path, listing: str) -> tuple[str, ...]:
    """Read names, one per line, from a file beside the data; returns none if there is no such file."""
    path = (root if root.is_dir() else root.parent) / listing
    if not path.is_file():
        return ()
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return tuple(line for line in lines if line)  # a name may contain spaces


def classes_of_parts(parts: Sequence[str], folders: Collection[str]) -> tuple[str, ...]:
    """Return the classes that occur in part names ``"class/part"``, in order of first occurrence.

    Args:
        parts: part names in label order.
        folders: classes that have clouds. The part names may contain further classes.

    Raises:
        ValueError: a part name occurs twice or has no class, the parts of a class are not consecutive, or a class has
            clouds but no parts.
    """
    owners = [name.rpartition("/")[0] for name in parts]
    classes = tuple(dict.fromkeys(owners))
    if "" in owners:
        raise ValueError(
            f"part_names: expected names 'class/part', got {parts[owners.index('')]!r}; the classes are "
            f"{', '.join(sorted(folders))}."
        )
    for i, name in enumerate(parts):
        if name in parts[:i]:
            raise ValueError(f"part_names: expected each part once, got {name!r} again.")
    for i, owner in enumerate(owners):
        if owner in owners[:i] and owner != owners[i - 1]:
            raise ValueError(
                f"part_names: expected the parts of a class to follow each other, got {parts[i]!r} after "
                f"{parts[i - 1]!r}; renumber the labels."
            )
    without = sorted(set(folders) - set(classes))
    if without:
        raise ValueError(
            f"part_names: the class {without[0]!r} has clouds, but no part is named {without[0]}/...; the parts are "
            f"{', '.join(parts)}."
        )
    return classes


def labels_of(cloud: Cloud) -> np.ndarray:
    """Return the part labels of a cloud that was read with ``labels=True``, ``(N,)`` int64.

    Raises:
        ValueError: the cloud has no labels.
    """
    if cloud.labels is not None:
        return cloud.labels
    why = (
        f"expected a whole number for each point, called one of {', '.join(LABEL_NAMES)} (in rows without a header "
        "x y z label, or x y z nx ny nz label)"
    )
    if cloud.from_mesh:
        why = "it is a mesh, whose points are newly sampled; save a point cloud with labels"
    raise ValueError(
        f"{cloud.path}: has no labels, but there are part names; {why}, or set part_names=[] to ignore labels."
    )
