"""Write scenes as a self-contained HTML page for any browser."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from importlib import resources

import numpy as np

from ..io.writing import write_text
from .scene import Scene

MAX_POINTS = 500_000


def write_page(path: str | os.PathLike[str], scenes: Sequence[Scene], *, title: str = "bixt3d") -> None:
    """Write scenes as one self-contained HTML page on which they can be turned by mouse or touch.

    Coordinates (float32) and colours (uint8) are embedded as base64. A cloud of more than 500,000 points is subsampled
    evenly to that number, and the page says so.

    Args:
        path: the ``.html`` file.
        scenes: one or more scenes. The page has buttons to switch between them.
        title: title of the page.

    Raises:
        ValueError: ``scenes`` is empty.
    """
    if not scenes:
        raise ValueError("scenes: got none, expected at least one.")
    data = json.dumps({"title": title, "scenes": [_scene(scene) for scene in scenes]}, ensure_ascii=True)
    # "<" in a name could end the script or start a comment; escaped, it is the same JSON
    data = data.replace("<", "\\u003c")
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    write_text(path, template.replace("/*SCENES*/null", data))


def _scene(scene: Scene) -> dict[str, object]:
    total = len(scene.points)
    kept = np.arange(total) if total <= MAX_POINTS else np.linspace(0, total - 1, MAX_POINTS).astype(np.int64)
    note = "" if len(kept) == total else f"{len(kept):,} of {total:,} points shown"
    return {
        "name": scene.name,
        "note": note,
        "points": _base64(scene.points[kept].astype("<f4")),
        "views": [
            {
                "title": view.title,
                "colors": _base64(view.colors[kept]),
                "legend": [{"text": entry.text, "color": list(entry.color)} for entry in view.legend],
            }
            for view in scene.views
        ],
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
