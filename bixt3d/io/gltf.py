"""Read glTF scenes: .gltf, and its binary form .glb."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from bixt3d.io.cloud import Cloud
from bixt3d.io.damage import Parsing
from bixt3d.io.mesh import Mesh

_BINARY = b"glTF"
_TRIANGLE_FAN = 6
_HARMLESS = ("KHR_mesh_quantization", "_lights_", "_materials_", "_texture_")  # substrings of extension names
_INSTANCES = "EXT_mesh_gpu_instancing"


def read_gltf(path: Path) -> Cloud | Mesh:
    """Read all triangles of the scene with the transforms of its nodes, or its points if it has no triangles.

    Ignored are materials, textures, colours, lines, skins, animations, and points in a scene with triangles.

    Raises:
        FileNotFoundError: a buffer file is missing.
        RuntimeError: the file or a buffer file is truncated or damaged.
        ValueError: the file needs an unsupported feature, such as compressed meshes, or has neither triangles nor
            points.
    """
    import trimesh

    content = path.read_bytes()
    with Parsing(path, path.suffix):
        tree = _tree(content)
        reason = _why_not(tree)
        lengths = {b["uri"]: int(b["byteLength"]) for b in tree.get("buffers", []) if "uri" in b}
        files = {uri: length for uri, length in lengths.items() if not uri.startswith("data:")}
    if reason:
        raise ValueError(
            f"{path}: {reason}; export it again, uncompressed and as triangles, or convert it to .ply."
        )
    buffers = {uri: _buffer(path, uri, length) for uri, length in files.items()}
    # colours may be NaN, and positions may overflow
    with Parsing(path, path.suffix), np.errstate(invalid="ignore", over="ignore"):
        kind, stream = "glb" if content.startswith(_BINARY) else "gltf", io.BytesIO(content)
        scene: Any = trimesh.load(stream, kind, resolver=buffers, process=False, skip_materials=True)
        placed = scene.dump()
        parts = [part for part in placed if isinstance(part, trimesh.PointCloud | trimesh.Trimesh)]
        vertices = [np.array(part.vertices, dtype=np.float64).reshape(-1, 3) for part in parts]
        faces = [np.array(getattr(part, "faces", ()), dtype=np.int64).reshape(-1, 3) for part in parts]
    meshes = [Mesh(path, *part) for part in zip(vertices, faces, strict=True) if len(part[1])]
    if not meshes:
        return Cloud(path, np.concatenate([np.zeros((0, 3)), *vertices]))
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        path,
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, first[:-1], strict=True)]),
    )


def _tree(content: bytes) -> dict[str, Any]:
    """Return the JSON content of the file; for a binary file of another version, only its version number."""
    if not content.startswith(_BINARY):
        return json.loads(content)
    version, length, size = struct.unpack_from("<3I", content, 4)
    if version != 2:
        return {"asset": {"version": version}}
    if length > len(content):
        raise ValueError(f"expected {length} bytes by its header, got {len(content)}")
    return json.loads(content[20 : 20 + size])


def _why_not(tree: dict[str, Any]) -> str | None:
    """Return why the shape cannot be read: a feature that trimesh ignores or gets wrong; None if there is none."""
    version = str(tree.get("asset", {}).get("version", "2.0"))
    if version.partition(".")[0] != "2":
        return f"expected version 2 of the format, got {version}"
    needed = {*tree.get("extensionsRequired", []), *({_INSTANCES} & {*tree.get("extensionsUsed", [])})}
    if unknown := sorted(n for n in needed if not any(part in n for part in _HARMLESS)):
        return f"needs {', '.join(unknown)}, which is not read"
    nodes, meshes = tree.get("nodes", []), tree.get("meshes", [])
    if meshes and not tree.get("scenes"):
        return "has meshes and no scene to put them in"
    if any("camera" in node and {"children", "mesh"} & {*node} for node in nodes):
        return "has something attached to a camera, which is not read"
    for mesh in (meshes[node["mesh"]] for node in nodes if "mesh" in node):
        for primitive in mesh["primitives"]:
            if primitive.get("mode") == _TRIANGLE_FAN:
                return "has fans of triangles, which are not read"
            numbers = [primitive["attributes"]["POSITION"], *({primitive.get("indices")} - {None})]
            for accessor in (tree["accessors"][number] for number in numbers):
                if accessor.get("normalized") or "sparse" in accessor or "bufferView" not in accessor:
                    return "has coordinates or faces that are sparse, normalized or compressed"
    return None


def _buffer(path: Path, uri: str, length: int) -> bytes:
    """Read the file of a buffer, whose name may be URL-encoded (%20 for a space)."""
    file = path.parent / unquote(uri)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: its data file {file} is missing; copy it there, or export a .glb.")
    content = file.read_bytes()
    if len(content) < length:
        raise RuntimeError(
            f"{file}: expected {length} bytes, as {path} announces, got {len(content)}; it may be truncated."
        )
    return content
