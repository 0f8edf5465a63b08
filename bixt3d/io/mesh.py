"""Triangle meshes, and readers of the mesh formats .off, .obj and .stl."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bixt3d.io.cloud import Cloud, scale_to_one
from bixt3d.io.damage import Parsing


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: vertices ``(V, 3)`` float64 and faces ``(F, 3)`` int64.

    Raises:
        RuntimeError: a face refers to a vertex that does not exist.
    """

    path: Path
    vertices: np.ndarray
    faces: np.ndarray

    def __post_init__(self) -> None:
        outside = (self.faces < 0) | (self.faces >= len(self.vertices))
        if outside.any():
            raise RuntimeError(
                f"{self.path}: a face refers to vertex {int(self.faces[outside][0])}, expected 0 to "
                f"{len(self.vertices) - 1}; it may be damaged."
            )

    def sample(self, num_samples: int, rng: np.random.Generator) -> Cloud:
        """Draw ``num_samples`` points uniformly by area, each with the normal of its face.

        A point is ``a + u (b - a) + v (c - a)`` with ``(u, v)`` uniform on ``u + v <= 1``.

        Raises:
            ValueError: a vertex is not finite, or the faces have no area.
        """
        if not np.isfinite(self.vertices).all():
            raise ValueError(f"{self.path}: a vertex has NaN or infinite coordinates; repair the mesh.")
        near_one = scale_to_one(self.vertices)  # so that areas neither overflow nor underflow
        a, b, c = (near_one[self.faces[:, corner]] for corner in range(3))
        cross = np.cross(b - a, c - a)  # length: twice the area
        double_area = np.linalg.norm(cross, axis=1)
        total = double_area.sum()
        if not total > 0:
            raise ValueError(f"{self.path}: the faces have no area; expected at least one proper triangle.")
        face = rng.choice(len(self.faces), size=num_samples, p=double_area / total)
        u, v = rng.random((2, num_samples, 1))
        outside = u + v > 1
        u, v = np.where(outside, 1 - u, u), np.where(outside, 1 - v, v)
        a, b, c = (self.vertices[self.faces[face, corner]] for corner in range(3))
        points = a + u * (b - a) + v * (c - a)
        return Cloud(self.path, points, cross[face] / double_area[face, None], from_mesh=True)


def read_mesh(path: Path) -> Cloud | Mesh:
    """Read a mesh, or a cloud if the file has no faces.

    Raises:
        RuntimeError: the file is truncated or damaged.
    """
    import trimesh

    suffix = path.suffix.lower()
    content = path.read_bytes()
    if suffix == ".obj":  # trimesh expects keywords at the start of a line, followed by a space
        content = re.sub(rb"(?m)^ +", b"", content.replace(b"\t", b" "))
    # several materials or solids give several meshes, so join them, but only if there are faces: it drops loose points
    force = "mesh" if suffix == ".stl" or (suffix == ".obj" and re.search(rb"(?m)^f ", content)) else None
    with Parsing(path, suffix), np.errstate(invalid="ignore"):  # a colour may be NaN
        stream = io.BytesIO(content)
        loaded = trimesh.load(stream, suffix[1:], process=False, force=force, skip_materials=True)
        vertices = np.array(getattr(loaded, "vertices", np.zeros((0, 3))), dtype=np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 3:  # trimesh truncates all rows to the shortest
        raise RuntimeError(
            f"{path}: expected points of three coordinates, got an array of shape {vertices.shape}; it may be "
            "truncated or damaged."
        )
    faces = np.array(getattr(loaded, "faces", np.zeros((0, 3))), dtype=np.int64).reshape(-1, 3)
    _check_counts(path, content, len(vertices), len(faces))
    if len(faces):
        return Mesh(path, vertices, faces)
    if len(vertices) == 0 and suffix in (".stl", ".obj"):
        raise RuntimeError(f"{path}: no face and no point could be read; it may be truncated or damaged.")
    return Cloud(path, vertices)


def _check_counts(path: Path, content: bytes, num_vertices: int, num_faces: int) -> None:
    """Raise RuntimeError if there is less than the file announces; trimesh accepts truncated files as smaller ones."""
    suffix = path.suffix.lower()
    if suffix == ".off":
        text = path.read_text(encoding="utf-8", errors="replace")
        header = re.match(r"\s*[A-Z]*OFF\s*(\d+)\s+(\d+)", re.sub(r"#.*", "", text))
        expected = [int(number) for number in header.groups()] if header else [0, 0]
    elif suffix == ".stl" and len(content) != 84 + 50 * num_faces:  # not a whole binary file
        facets = len(re.findall(rb"(?im)^[ \t]*facet\s+normal\s", content))
        expected = [3 * facets, facets]
    else:
        return
    # a polygon is one face in the header, but becomes several triangles
    if num_vertices < expected[0] or num_faces < expected[1]:
        raise RuntimeError(
            f"{path}: expected {expected[0]} vertices and {expected[1]} faces, as it announces, "
            f"got {num_vertices} and {num_faces}; it may be truncated."
        )
