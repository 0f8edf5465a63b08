"""docs/python.md: its examples run as they stand, and what it promises of threads holds."""

import re
import threading

import numpy as np
import pytest
import torch
import trimesh
from places import ROOT

import bixt3d

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
WEIGHTS = ROOT / "weights" / "modelnet40_cpu_1024.safetensors"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("cfgs", "weights"):
        (tmp_path / name).symlink_to(ROOT / name)
    cup = np.random.default_rng(0).normal(size=(700, 3)) * [30, 50, 30] + 900
    trimesh.PointCloud(cup).export(tmp_path / "cup.ply")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_run_in_order(folder, one_thread):
    names = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    # the shapes that the page writes beside them
    assert [names[n].shape for n in ("latents", "tokens", "centers")] == [
        (8, 32, 128),
        (8, 64, 256),
        (8, 64, 3),
    ]
    assert names["embedding"].shape == (8, 128)
    assert names["maps"].latents_from_tokens.shape == (8, 4, 32, 512)
    assert names["maps"].tokens_from_latents.shape == (8, 4, 512, 32)
    assert names["seen"].shape == (8, 512, 3)
    assert names["weights"].shape == (2, 700)
    assert names["layers"][-1].maps.tokens_from_latents is None
    for each in names["predictions"]:  # in a batch sums round otherwise
        np.testing.assert_allclose(each.probabilities, names["prediction"].probabilities, rtol=1e-4)
    assert names["mine"](names["clouds"][0]).name in names["mine"].classes
    assert names["operations"] > 10 * names["parameters"]
    assert (names["folder"] / "results.json").is_file()
    assert 0 <= names["result"].summary()["OA"] <= 100


def official_state(depth=12, dim=192):
    """Weights of the size of BiXT-Ti for images, under the names of its authors."""
    norms = {"weight": (dim,), "bias": (dim,)}

    def linear(out, width):
        return {"weight": (out, width), "bias": (out,)}

    mlp = {f"fc1.{k}": v for k, v in linear(4 * dim, dim).items()}
    mlp |= {f"fc2.{k}": v for k, v in linear(dim, 4 * dim).items()}
    shapes = {"latents": (1, 64, dim), "fc_norm.weight": (dim,), "fc_norm.bias": (dim,)}
    shapes |= {f"head.{k}": v for k, v in linear(1000, dim).items()} | {"patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        sides = ("lat",) if i == depth - 1 else ("lat", "pat")
        cross = {"norm1_lat": norms, "norm1_pat": norms, "attn.rv_patches": linear(2 * dim, dim)}
        latents = ("attn.r_latents", dim) if i == depth - 1 else ("attn.rv_latents", 2 * dim)
        cross[latents[0]] = linear(latents[1], dim)
        for side in sides:
            cross |= {f"attn.proj_{side}": linear(dim, dim), f"norm2_{side}": norms, f"mlp_{side}": mlp}
        own = {"norm1": norms, "attn.qkv": linear(3 * dim, dim), "attn.proj": linear(dim, dim)}
        own |= {"norm2": norms, "mlp": mlp}
        for prefix, parts in (("cross_attention_latents_token", cross), ("self_attention_latents", own)):
            for name, members in parts.items():
                shapes |= {f"blocks.{i}.{prefix}.{name}.{k}": v for k, v in members.items()}
    return {name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}


def test_weights_of_images_are_where_points_begin(tmp_path):
    (block,) = (b for b in BLOCKS if "def from_images" in b)
    names = {"torch": torch}
    exec(compile(block, "docs/python.md", "exec"), names)
    state = official_state()
    torch.save({"state_dict": state}, tmp_path / "bixt_ti.pth")
    model = names["from_images"](tmp_path / "bixt_ti.pth")
    ours = model.encoder
    torch.testing.assert_close(ours.latents.data, state["latents"])
    for mine, theirs in (
        (ours.blocks[3].cross.attention.token_proj, "blocks.3.cross_attention_latents_token.attn.proj_pat"),
        (ours.blocks[11].cross.mlp.mlp.fc2, "blocks.11.cross_attention_latents_token.mlp_lat.fc2"),
        (ours.blocks[7].self_attention[0].attention.qkv, "blocks.7.self_attention_latents.attn.qkv"),
    ):
        torch.testing.assert_close(mine.weight.data, state[f"{theirs}.weight"])
    assert sum(v.numel() for k, v in state.items() if k.startswith(("blocks.", "latents"))) == sum(
        p.numel() for p in ours.parameters()
    )
    assert model(torch.rand(1, 64, 3)).shape == (1, 40)


def test_the_model_of_the_readme():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(import torch\n.*?)^```", page, re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["logits"].shape == (8, 40)


def test_what_the_head_reads_is_the_embedding():
    model = bixt3d.load(WEIGHTS, device="cpu").model
    points = torch.rand(2, 512, 3)
    with torch.no_grad():
        latents = model.forward_features(points)[0]
        torch.testing.assert_close(model.head(model.norm(latents.mean(dim=1))), model(points))


def test_threads_may_share_a_predictor():
    predictor = bixt3d.load(WEIGHTS, device="cpu")
    clouds = [np.random.default_rng(i).normal(size=(400 + 100 * i, 3)) for i in range(6)]
    alone = [predictor(cloud).probabilities for cloud in clouds]
    found = {}

    def work(first):
        for i in range(first, len(clouds), 2):
            found[i] = predictor(clouds[i]).probabilities

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(alone):
        np.testing.assert_array_equal(found[i], expected)
