"""Outputs of the authors' BiXT blocks, reproduced through the converter (tests/golden/README.md)."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from bixt3d.layers import BidirectionalCrossAttention
from bixt3d.models import BiXTEncoder
from bixt3d.models.convert import bixt_from_official

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-5


def assert_matches(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Compare relative to the largest value: these outputs reach 47, where float32 itself rounds by 4e-6."""
    scale = theirs.abs().max()
    torch.testing.assert_close(ours / scale, theirs / scale, atol=TOLERANCE, rtol=0)


def read(name: str) -> tuple[dict, dict]:
    with np.load(GOLDEN / name) as file:
        arrays = {k: torch.from_numpy(file[k]) for k in file.files}
    state = {k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")}
    return state, {k: v for k, v in arrays.items() if not k.startswith("state/")}


def encoder(state: dict, golden: dict, *, dense: bool) -> BiXTEncoder:
    depth = 1 + max(int(k.split(".")[0]) for k in state)
    model = BiXTEncoder(
        depth=depth,
        dim=48,
        num_latents=golden["latents"].shape[1],
        num_heads=int(golden["num_heads"]),
        drop_path=0.1,
        dense=dense,
    )
    model.load_state_dict(bixt_from_official({"latents": golden["latents"], **state}), strict=True)
    return model.eval()


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_cross_attention(backend):
    state, golden = read("bixt_cross_attention.npz")
    module = BidirectionalCrossAttention(48, 48, num_heads=int(golden["num_heads"]), backend=backend)
    names = {
        "rv_latents": "latent_ref_val",
        "rv_patches": "token_ref_val",
        "proj_lat": "latent_proj",
        "proj_pat": "token_proj",
    }
    module.load_state_dict({f"{names[k.split('.')[0]]}.{k.split('.')[1]}": v for k, v in state.items()})
    latents, tokens, maps = module(golden["latents"], golden["tokens"])
    assert maps is None
    assert_matches(latents, golden["out_latents"])
    assert_matches(tokens, golden["out_tokens"])


@pytest.mark.parametrize(
    ("name", "dense"), [("bixt_blocks_dense.npz", True), ("bixt_blocks_latent_last.npz", False)]
)
def test_blocks(name, dense):
    state, golden = read(name)
    model = encoder(state, golden, dense=dense)
    latents, tokens = model.latents, golden["tokens"]
    for i, block in enumerate(model.blocks):
        latents, tokens, _ = block(latents, tokens)
        assert_matches(latents, golden[f"block{i}/latents"])
        if f"block{i}/tokens" in golden:
            assert_matches(tokens, golden[f"block{i}/tokens"])
    whole = model(golden["tokens"], torch.zeros(3, 33, 3))
    assert_matches(whole.latents, latents)


def test_the_golden_files_round_no_better_than_we_do():
    """Against float64, our float32 error stays within twice that of the authors' own float32 code."""
    state, golden = read("bixt_blocks_latent_last.npz")
    exact = encoder(state, golden, dense=False).double()(golden["tokens"].double(), torch.zeros(3, 33, 3))
    ours = encoder(state, golden, dense=False)(golden["tokens"], torch.zeros(3, 33, 3))
    theirs = golden["block2/latents"]
    assert (ours.latents - exact.latents).abs().max() <= 2 * (theirs - exact.latents).abs().max() + 1e-6


def test_gradients_of_the_blocks():
    state, golden = read("bixt_blocks_dense.npz")
    model = encoder(state, golden, dense=True)
    tokens = golden["tokens"].clone().requires_grad_()
    out = model(tokens, torch.zeros(3, 33, 3))
    objective = (out.latents**2).sum() + (out.tokens * torch.linspace(-1, 1, 48)).sum()
    torch.testing.assert_close(objective, golden["grad/objective"], atol=0, rtol=TOLERANCE)
    objective.backward()
    assert_matches(model.latents.grad, golden["grad/latents"])
    assert_matches(tokens.grad, golden["grad/tokens"])


def test_dense_conversion_leaves_the_one_sided_layer_out():
    state, golden = read("bixt_blocks_latent_last.npz")
    converted = bixt_from_official({"latents": golden["latents"], **state}, dense=True)
    model = BiXTEncoder(depth=2, dim=48, num_latents=7, num_heads=int(golden["num_heads"]), dense=True)
    model.load_state_dict(converted, strict=True)
    out = model.eval()(golden["tokens"], torch.zeros(3, 33, 3))
    assert_matches(out.tokens, golden["block1/tokens"])


def test_whole_official_state_dict_with_layer_scale(caplog):
    state, golden = read("bixt_blocks_latent_last.npz")
    official = {"module.latents": golden["latents"]}
    official |= {f"module.blocks.{k}": v for k, v in state.items()}
    for i in range(3):
        cross, own = (
            f"module.blocks.{i}.cross_attention_latents_token",
            f"module.blocks.{i}.self_attention_latents",
        )
        sides = ("lat",) if i == 2 else ("lat", "pat")
        official |= {f"{cross}.ls{j}_{s}.gamma": torch.full((48,), 0.5) for j in (1, 2) for s in sides}
        official |= {f"{own}.ls{j}.gamma": torch.full((48,), 0.5) for j in (1, 2)}
    official |= {"module.fc_norm.weight": torch.ones(48), "module.fc_norm.bias": torch.zeros(48)}
    official |= {"module.head.weight": torch.zeros(1000, 48), "module.head.bias": torch.zeros(1000)}
    official |= {
        "module.patch_embed.proj.weight": torch.zeros(48, 3, 16, 16),
        "module.fourier_pos_encode.token_projection.weight": torch.zeros(48, 64),
    }
    with caplog.at_level(logging.WARNING):
        converted = bixt_from_official(official)
    assert "patch_embed.proj.weight" in caplog.text
    assert "fourier_pos_encode.token_projection.weight" in caplog.text
    head = {k: v for k, v in converted.items() if k.startswith(("norm.", "head."))}
    assert sorted(head) == ["head.bias", "head.weight", "norm.bias", "norm.weight"]
    model = BiXTEncoder(depth=3, dim=48, num_latents=7, num_heads=int(golden["num_heads"]), layer_scale=1.0)
    model.load_state_dict({k: v for k, v in converted.items() if k not in head}, strict=True)
    assert all((v == 0.5).all() for k, v in model.state_dict().items() if k.endswith("gamma"))


def test_other_state_dicts_are_refused():
    with pytest.raises(ValueError, match=r"not of an official BiXT.*'layer1\.weight'"):
        bixt_from_official({"layer1.weight": torch.zeros(1)})
