import base64
import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import trimesh

from bixt3d.io import read_points
from bixt3d.io.gltf import read_gltf

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], "<f4")
KINDS = {"<f4": 5126, "<u2": 5123, "<u4": 5125, "<i2": 5122, "|u1": 5121}
PLAIN = ({"mesh": 0},)


def scene(primitives, nodes=PLAIN, roots=None, **more):
    """Describe one mesh of some primitives, each a mode and its arrays, and return its buffer as well."""
    tree = {
        "asset": {"version": "2.0"},
        "bufferViews": [],
        "accessors": [],
        "nodes": [dict(node) for node in nodes],
    }
    tree["scenes"] = [{"nodes": list(range(len(nodes))) if roots is None else roots}]
    content = b""
    described = []
    for mode, arrays in primitives:
        numbers = {}
        for name, array in arrays.items():
            numbers[name] = len(tree["accessors"])
            width = array.shape[1] if array.ndim > 1 else 1
            view = {"buffer": 0, "byteOffset": len(content), "byteLength": array.nbytes}
            accessor = {
                "bufferView": len(tree["bufferViews"]),
                "componentType": KINDS[array.dtype.str],
                "count": len(array),
                "type": "SCALAR" if width == 1 else f"VEC{width}",
            }
            tree["bufferViews"].append(view)
            tree["accessors"].append(accessor)
            content += array.tobytes() + b"\0" * (-array.nbytes % 4)
        indices = {"indices": numbers.pop("indices")} if "indices" in numbers else {}
        described.append({"mode": mode, "attributes": numbers, **indices})
    tree["meshes"] = [{"primitives": described}]
    tree["buffers"] = [{"byteLength": len(content)}]
    return {**tree, **more}, content


def write(path, described):
    tree, content = described
    if path.suffix == ".gltf":
        uri = "data:application/octet-stream;base64," + base64.b64encode(content).decode()
        path.write_text(json.dumps({**tree, "buffers": [{"uri": uri, **tree["buffers"][0]}]}))
        return path
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    body = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(content), b"BIN\0") + content
    )
    path.write_bytes(struct.pack("<4s2I", b"glTF", 2, 12 + len(body)) + body)
    return path


def write_apart(path, described):
    tree, content = described
    (path.parent / "my data.bin").write_bytes(content)
    path.write_text(json.dumps({**tree, "buffers": [{"uri": "my%20data.bin", **tree["buffers"][0]}]}))
    return path


def corners(path):
    """Return the corners of all triangles, sorted: (3 F, 3)."""
    mesh = read_gltf(path)
    places = mesh.vertices[mesh.faces.reshape(-1)]
    return places[np.lexsort(places.T)].round(6).tolist()


def in_order(*places):
    places = np.concatenate([np.array(place, dtype=float).reshape(-1, 3) for place in places])
    return places[np.lexsort(places.T)].tolist()


TRIANGLE = ((4, {"POSITION": CORNERS}),)


@pytest.mark.parametrize("name", ["a.glb", "a.gltf", "apart.gltf", "A.GLB"])
def test_a_buffer_may_lie_in_the_file_in_its_text_or_beside_it(tmp_path, name):
    places = np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 5]], "<f4")
    described = scene([(4, {"POSITION": places, "indices": np.array([0, 1, 2, 0, 1, 3], "<u2")})])
    path = (write_apart if "apart" in name else write)(tmp_path / name, described)
    assert corners(path) == in_order(places[[0, 1, 2, 0, 1, 3]])
    cloud = read_points(path, num_samples=4000)
    assert cloud.from_mesh
    # the triangles have areas 3 * 4 / 2 and 3 * 5 / 2; 4 standard deviations of a binomial
    assert abs((cloud.points[:, 2] == 0).mean() - 4 / 9) < 4 * np.sqrt(20 / 81 / 4000)
    assert np.allclose(np.abs(cloud.normals)[:, 0], 0)


def test_meshes_stand_where_their_nodes_put_them(tmp_path):
    half = np.sqrt(0.5)
    nodes = [
        {"children": [1, 2], "translation": [10, 0, 0]},
        {"mesh": 0, "name": "same", "scale": [2, 3, 1]},
        {"mesh": 0, "name": "same", "rotation": [0, half, 0, half], "translation": [0, 0, 7]},
        # column by column: x to z, y to x, z to y, and then 5 along x
        {"mesh": 0, "matrix": [0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 5, 0, 0, 1]},
    ]
    path = write(tmp_path / "a.glb", scene(TRIANGLE, nodes, roots=[0, 3]))
    # a quarter turn about y takes x to -z
    assert corners(path) == in_order(
        [[10, 0, 0], [12, 0, 0], [10, 3, 0]],
        [[10, 0, 7], [10, 0, 6], [10, 1, 7]],
        [[5, 0, 0], [5, 0, 1], [6, 0, 0]],
    )


def test_all_primitives_of_a_mesh_are_read_also_strips_and_unmeshed_nodes_cost_nothing(tmp_path):
    far = SQUARE + np.array([5, 0, 0], "<f4")
    primitives = [
        (4, {"POSITION": CORNERS, "NORMAL": CORNERS, "indices": np.array([0, 1, 2], "|u1")}),
        (5, {"POSITION": far, "indices": np.array([0, 1, 2, 3], "<u4")}),
        (1, {"POSITION": CORNERS + np.float32(50)}),
        (0, {"POSITION": CORNERS + np.float32(70)}),
    ]
    path = write(tmp_path / "a.glb", scene(primitives, [{"name": "empty"}, {"mesh": 0}, {"camera": 0}]))
    assert corners(path) == in_order(CORNERS, far[[0, 1, 2, 1, 2, 3]])


def test_a_mirrored_mesh_keeps_its_outside(tmp_path):
    for scale in ([1, 1, 1], [-1, 1, 1], [-1, -2, 1]):
        path = write(tmp_path / "a.glb", scene(TRIANGLE, [{"mesh": 0, "scale": scale}]))
        assert np.allclose(read_points(path, num_samples=5).normals, [0, 0, 1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("colors", [None, "|u1", "<u2", "<f4", "nan"])
def test_points_are_a_cloud_in_their_own_order(tmp_path, colors):
    places = np.random.default_rng(0).normal(size=(50, 3)).astype("<f4")
    arrays = {"POSITION": places}
    if colors == "nan":
        arrays["COLOR_0"] = np.full((50, 4), np.nan, "<f4")
    elif colors:
        arrays["COLOR_0"] = np.ones((50, 4), colors)
    path = write(tmp_path / "a.glb", scene([(0, arrays)], [{"mesh": 0, "scale": [2, 2, 2]}]))
    cloud = read_points(path, num_samples=7)
    assert not cloud.from_mesh
    assert np.array_equal(cloud.points, 2 * places.astype(float))


def test_whole_numbers_are_coordinates_that_a_node_scales(tmp_path):
    """As KHR_mesh_quantization allows; rows of 8 bytes hold 6, as in what gltfpack writes."""
    rows = np.zeros((3, 4), "<i2")
    rows[:, :3] = [[0, 0, 0], [100, 0, 0], [0, 300, 0]]
    described = scene([(4, {"POSITION": rows})], [{"mesh": 0, "scale": [0.01, 0.01, 1]}])
    tree = described[0]
    tree["accessors"][0]["type"] = "VEC3"
    tree["bufferViews"][0]["byteStride"] = 8
    tree["extensionsRequired"] = ["KHR_mesh_quantization", "KHR_texture_basisu", "KHR_materials_unlit"]
    assert corners(write(tmp_path / "a.glb", described)) == in_order([0, 0, 0], [1, 0, 0], [0, 3, 0])


def test_what_the_writer_of_trimesh_puts_into_a_scene_is_read(tmp_path):
    whole = trimesh.Scene()
    box = trimesh.creation.box(extents=(2, 4, 6))
    for x in (0, 10):
        whole.add_geometry(
            box, geom_name="box", transform=trimesh.transformations.translation_matrix([x, 0, 0])
        )
    whole.export(tmp_path / "a.glb")
    (tmp_path / "b").mkdir()
    whole.export(tmp_path / "b" / "b.gltf")
    for path in (tmp_path / "a.glb", tmp_path / "b" / "b.gltf"):
        cloud = read_points(path, num_samples=4000)
        left = cloud.points[:, 0] < 5
        assert abs(left.mean() - 0.5) < 4 * np.sqrt(0.25 / 4000)
        near = np.abs(cloud.points - np.where(left[:, None], 0, [10, 0, 0])) / [1, 2, 3]
        assert np.allclose(near.max(axis=1), 1)  # on the surface of a box


def test_neither_images_nor_their_library_are_needed_and_no_hash_seed_matters(tmp_path):
    uv = np.zeros((3, 2), "<f4")
    primitives = [(4, {"POSITION": CORNERS + np.float32(i), "TEXCOORD_0": uv}) for i in range(4)]
    tree, content = scene(primitives, [{"mesh": 0}, {"mesh": 0, "translation": [9, 0, 0]}])
    tree["images"] = [{"uri": "absent.png"}, {"uri": "data:image/png;base64,AAAA"}]
    tree["textures"] = [{"source": 0}]
    tree["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
    for primitive in tree["meshes"][0]["primitives"]:
        primitive["material"] = 0
    path = write(tmp_path / "a.glb", (tree, content))
    expected = read_points(path, num_samples=20).points.tolist()
    code = (
        "import sys, json; sys.modules.update(dict.fromkeys(('PIL', 'scipy', 'networkx'))); "
        "from bixt3d.io import read_points; "
        f"print(json.dumps(read_points({str(path)!r}, num_samples=20).points.tolist()))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert json.loads(done.stdout) == expected, done.stderr


def changed(**more):
    return lambda tree: tree.update(more)


UNREAD = {
    "draco": (
        changed(extensionsRequired=["KHR_draco_mesh_compression"]),
        "needs KHR_draco_mesh_compression, which",
    ),
    "meshopt": (
        changed(extensionsRequired=["EXT_meshopt_compression"]),
        "needs EXT_meshopt_compression, which",
    ),
    "instances": (
        changed(extensionsUsed=["EXT_mesh_gpu_instancing"]),
        "needs EXT_mesh_gpu_instancing, which",
    ),
    "version": (changed(asset={"version": "1.0"}), r"expected version 2 of the format, got 1\.0"),
    "no scene": (lambda tree: tree.pop("scenes"), "has meshes and no scene"),
    "camera": (changed(nodes=[{"mesh": 0, "camera": 0}]), "has something attached to a camera"),
    "child": (
        changed(nodes=[{"camera": 0, "children": [1]}, {"mesh": 0}]),
        "has something attached to a camera",
    ),
    "fan": (lambda tree: tree["meshes"][0]["primitives"][0].update(mode=6), "has fans of triangles"),
    "sparse": (
        lambda tree: tree["accessors"][0].update(sparse={"count": 1}),
        "sparse, normalized or compressed",
    ),
    "normalized": (
        lambda tree: tree["accessors"][0].update(normalized=True),
        "sparse, normalized or compressed",
    ),
    "bare": (lambda tree: tree["accessors"][0].pop("bufferView"), "sparse, normalized or compressed"),
    "indices": (lambda tree: tree["accessors"][1].pop("bufferView"), "sparse, normalized or compressed"),
}


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_what_is_not_read_is_refused_in_a_sentence(tmp_path, name, suffix):
    change, words = UNREAD[name]
    described = scene([(4, {"POSITION": CORNERS, "indices": np.array([0, 1, 2], "<u4")})])
    path = tmp_path / f"a.{suffix}"
    read_points(write(path, described))
    change(described[0])
    write(path, described)
    with pytest.raises(
        ValueError, match=rf"a\.{suffix}: .*{words}.*; export it again, .* or convert it to \.ply\.$"
    ):
        read_points(path)


def test_the_first_version_of_the_binary_form_is_refused(tmp_path):
    (tmp_path / "a.glb").write_bytes(struct.pack("<4s4I", b"glTF", 1, 40, 20, 0) + b"{}".ljust(20))
    with pytest.raises(ValueError, match="expected version 2 of the format, got 1;"):
        read_points(tmp_path / "a.glb")


def test_a_buffer_that_is_not_there_or_ends_early_is_named(tmp_path):
    path = write_apart(tmp_path / "a.gltf", scene(TRIANGLE))
    data = tmp_path / "my data.bin"
    data.write_bytes(data.read_bytes()[:20])
    with pytest.raises(
        RuntimeError, match=r"my data\.bin: expected 36 bytes, .* got 20; it may be truncated"
    ):
        read_points(path)
    data.unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.gltf: its data file .*my data\.bin is missing"):
        read_points(path)


@pytest.mark.parametrize("mode", [0, 4])
@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_a_file_cut_anywhere_is_refused(tmp_path, mode, suffix):
    path = write(tmp_path / f"a.{suffix}", scene([(mode, {"POSITION": CORNERS})]))
    content = path.read_bytes()
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(RuntimeError, match=rf"a\.{suffix}: .*truncated") as caught:
            read_points(path)
        assert "\n" not in str(caught.value)
        if suffix == "glb" and length >= 20:
            assert f"expected {len(content)} bytes by its header, got {length}" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["accessors"][0].update(count=10**12), "damaged"),
        (lambda tree: tree["bufferViews"][0].update(byteLength=10**9), "damaged"),
        (lambda tree: tree["bufferViews"][0].update(buffer=3), "damaged"),
        (lambda tree: tree["meshes"][0]["primitives"][0]["attributes"].pop("POSITION"), "damaged"),
        (lambda tree: tree["nodes"].append({"mesh": 9}), "damaged"),
        (lambda tree: tree.update(accessors=[1]), "damaged"),
        (lambda tree: tree.update(buffers=[{"uri": 5, "byteLength": 36}]), "damaged"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, change, words):
    described = scene(TRIANGLE)
    change(described[0])
    with pytest.raises(RuntimeError, match=rf"a\.glb: .*{words}"):
        read_points(write(tmp_path / "a.glb", described))


def test_a_face_of_a_vertex_of_another_mesh_is_refused(tmp_path):
    """Joined, the second mesh would lend the first its vertices."""
    arrays = {"POSITION": CORNERS, "indices": np.array([0, 1, 4], "<u4")}
    with pytest.raises(RuntimeError, match=r"a\.glb: .*damaged"):
        read_points(write(tmp_path / "a.glb", scene([(4, arrays), (4, {"POSITION": CORNERS})])))


def test_a_scene_without_a_shape_and_one_without_a_place_are_refused(tmp_path):
    for described in (scene([(1, {"POSITION": CORNERS})]), scene(TRIANGLE, [{"name": "empty"}])):
        with pytest.raises(ValueError, match=r"a\.glb: has no points"):
            read_points(write(tmp_path / "a.glb", described))
    for scale in (float("nan"), 1e308):
        nodes = [{"mesh": 0, "translation": [0, 1e308, scale], "scale": [1, 1e308, 1e308]}]
        described = scene(((4, {"POSITION": CORNERS * np.float32(9)}),), nodes)
        with pytest.raises(ValueError, match=r"a\.glb: a vertex has NaN or infinite"):
            read_points(write(tmp_path / "a.glb", described))
