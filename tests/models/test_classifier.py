"""What a BiXT classifier and its encoder promise, whatever their weights."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from bixt3d.layers import (
    DropPath,
    GroupRefinement,
    PointTokenizer,
    bidirectional_cross,
    iterative_cross,
    sequential_cross,
)
from bixt3d.models import BiXTClassifier, BiXTEncoder

REFINEMENT = partial(GroupRefinement, num_neighbors=4, width=8)
VARIANTS = {
    "naive": {},
    "grouping": {"refinement": REFINEMENT},
    "grouping after": {"refinement": REFINEMENT, "refine": "after"},
    "grouping in layer 1": {"refinement": REFINEMENT, "refinement_layers": [1]},
    "hierarchy": {"refinement": partial(REFINEMENT, reduction=2)},
    "hierarchy after": {"refinement": partial(REFINEMENT, reduction=2), "refine": "after"},
    "widening hierarchy": {
        "refinement": partial(REFINEMENT, reduction=2),
        "token_dim": 12,
        "token_dims": [16, 20, 28],
    },
    "sequential": {"cross": sequential_cross},
    "iterative": {"cross": iterative_cross, "self_attention_per_layer": 2},
    "iterative shared": {"cross": iterative_cross, "share_cross": "all"},
    "iterative shared but first": {"cross": iterative_cross, "share_cross": "all_but_first"},
    "dense": {"dense": True},
    "layer scale": {"layer_scale": 0.1, "drop_path": 0.2, "dropout": 0.1},
}


def classifier(in_channels=3, **options) -> BiXTClassifier:
    torch.manual_seed(0)
    settings = {"depth": 3, "dim": 24, "num_latents": 5, "num_heads": 3, "drop_path": 0.0, **options}
    model = BiXTClassifier(
        7,
        tokenizer=PointTokenizer(settings.get("token_dim", 24), in_channels=in_channels, scale=10.0),
        encoder=BiXTEncoder(**settings),
    )
    torch.nn.init.normal_(model.head.weight)  # the head starts at zero, which would hide everything
    return model


@pytest.fixture(params=VARIANTS, ids=[v.replace(" ", "-") for v in VARIANTS])
def model(request):
    return classifier(**VARIANTS[request.param])


def test_every_parameter_is_used(model):
    """A parameter without a gradient is dead weight, and stops distributed training."""
    model(torch.rand(2, 32, 3)).square().sum().backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    if model.encoder.dense:  # a classifier on a dense encoder leaves the last token update unread
        unused = [n for n in unused if "blocks.2.cross.token" not in n and "latent_ref_val" not in n]
        unused = [n for n in unused if "blocks.2.cross.attention.token_proj" not in n]
    assert unused == []


def test_logits_do_not_depend_on_the_order_of_the_points(model):
    if any(r.reduction > 1 for r in model.encoder.refinements if isinstance(r, GroupRefinement)):
        pytest.skip("farthest points start at the first point, so the order matters a little")
    model.eval()
    points = torch.rand(2, 32, 3)
    order = torch.randperm(32)
    torch.testing.assert_close(model(points[:, order]), model(points), atol=1e-4, rtol=1e-4)


def test_clouds_of_a_batch_do_not_see_each_other(model):
    model.eval()
    points = torch.rand(3, 32, 3)
    together = model(points)
    alone = torch.cat([model(cloud[None]) for cloud in points])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_the_head_reads_the_norm_of_the_mean_latent():
    model, points = classifier(in_channels=6).eval(), torch.rand(2, 32, 6)
    torch.nn.init.normal_(model.norm.weight)
    latents, _, centers = model.forward_features(points)
    mean = latents.mean(dim=1)
    spread = ((mean - mean.mean(dim=1, keepdim=True)) ** 2).mean(dim=1, keepdim=True)
    normed = (mean - mean.mean(dim=1, keepdim=True)) / (spread + 1e-6).sqrt()
    by_hand = (normed * model.norm.weight + model.norm.bias) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(points), by_hand, atol=1e-5, rtol=1e-5)
    assert torch.equal(centers, points[..., :3])


def test_dropout_of_the_head_rests_in_evaluation():
    encoder = BiXTEncoder(depth=1, dim=24, num_latents=5, num_heads=3, drop_path=0.0)
    model = BiXTClassifier(7, tokenizer=PointTokenizer(24), encoder=encoder, dropout=0.5)
    torch.nn.init.normal_(model.head.weight)
    points = torch.rand(2, 32, 3)
    assert not torch.equal(model(points), model(points))
    model.eval()
    assert torch.equal(model(points), model(points))


def test_attention_maps_are_distributions_over_the_layer_s_tokens(model):
    model.eval()
    points = torch.rand(2, 32, 3)
    latents, tokens, centers, attention = model.forward_features(points, return_attention=True)
    assert latents.shape == (2, 5, 24)
    assert tokens.shape[:2] == centers.shape[:2]
    assert len(attention) == 3
    for maps, seen in attention:
        read = maps.latents_from_tokens
        assert read.shape == (2, 3, 5, seen.shape[1])
        torch.testing.assert_close(read.sum(-1), torch.ones(2, 3, 5))
        if maps.tokens_from_latents is not None:
            assert maps.tokens_from_latents.shape == (2, 3, seen.shape[1], 5)
            torch.testing.assert_close(maps.tokens_from_latents.sum(-1), torch.ones(2, 3, seen.shape[1]))
    same = model.forward_features(points)
    assert len(same) == 3
    torch.testing.assert_close(same[0], latents)


def test_attention_maps_are_those_that_were_used():
    """Values times the returned map give the update that the layer itself makes."""
    layer = classifier().encoder.blocks[0].cross.attention.eval()
    latents, tokens = torch.randn(2, 5, 24), torch.randn(2, 9, 24)
    update, _, maps = layer(latents, tokens, return_attention=True)
    values = layer.token_ref_val(tokens).unflatten(-1, (2, 3, 8))[:, :, 1].permute(0, 2, 1, 3)
    by_hand = layer.latent_proj((maps.latents_from_tokens @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(update, by_hand, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["naive", "grouping", "hierarchy", "sequential", "iterative"])
def test_compiles_without_a_graph_break(name, backend):
    model = classifier(**VARIANTS[name]).eval()
    points = torch.rand(2, 32, 3)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    torch.testing.assert_close(compiled(points), model(points), atol=1e-5, rtol=1e-5)
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["naive", "grouping", "hierarchy"])
def test_exports_with_any_number_of_clouds_and_points(name):
    model = classifier(**VARIANTS[name]).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    count = 8 * torch.export.Dim("count", min=2, max=4096) if name == "hierarchy" else None
    count = count or torch.export.Dim("count", min=8, max=4096)
    program = torch.export.export(
        model, (torch.rand(3, 32, 3),), dynamic_shapes={"points": {0: batch, 1: count}}
    )
    points = torch.rand(5, 48, 3)
    torch.testing.assert_close(program.module()(points), model(points), atol=1e-5, rtol=1e-5)


def test_bfloat16_autocast_stays_close():
    model = classifier(**VARIANTS["grouping"]).eval()
    points = torch.rand(2, 32, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(points).float()
    exact = model(points)
    assert (half - exact).norm() / exact.norm() < 0.05


def test_a_new_model_starts_as_the_paper_s():
    """Latents of standard deviation 0.02, linear maps Xavier-uniform without bias, and no opinion."""
    torch.manual_seed(0)
    encoder = BiXTEncoder(depth=2, dim=96, num_latents=200, num_heads=3)
    model = BiXTClassifier(7, tokenizer=PointTokenizer(96), encoder=encoder)
    assert float(encoder.latents.detach().std()) == pytest.approx(0.02, rel=0.05)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert not module.bias.any(), name
            if module is not model.head:
                limit = (6 / sum(module.weight.shape)) ** 0.5
                assert float(module.weight.detach().abs().max()) == pytest.approx(limit, rel=0.01), name
    assert not model(torch.rand(2, 32, 3)).any()


def test_stochastic_depth_grows_from_none_to_all_of_its_rate():
    blocks = classifier(drop_path=0.3).encoder.blocks
    rates = [{m.rate for m in block.modules() if isinstance(m, DropPath)} for block in blocks]
    assert rates == [{0.0}, {0.15}, {0.3}]


def test_sharing_leaves_the_parameters_of_one_layer():
    def count(**options):
        return sum(p.numel() for p in classifier(cross=iterative_cross, **options).parameters())

    layer = sum(p.numel() for p in classifier(cross=iterative_cross).encoder.blocks[0].cross.parameters())
    assert count() - count(share_cross="all") == 2 * layer
    assert count() - count(share_cross="all_but_first") == layer


def test_published_size():
    """SPEC of the tiny model: 14.79 M parameters on points, 15.12 M with the image tokeniser and 1000 classes."""
    model = BiXTClassifier(40, tokenizer=PointTokenizer(192), encoder=BiXTEncoder())
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 14_794_408
    # for images: patches of 16 x 16 pixels of 3 colours and 2 axes of position to 192, and 1,000 classes
    image = (16 * 16 * 3 * 192 + 192) + (2 * 32 * 192 + 192) + (192 * 1000 + 1000)
    ours = sum(p.numel() for module in (model.tokenizer, model.head) for p in module.parameters())
    assert round((parameters - ours + image) / 1e6, 2) == 15.12


def test_weights_start_as_published():
    """Latents normal, std 0.02; linear maps Xavier-uniform with zero biases; a head of zeros."""
    torch.manual_seed(0)
    refinement = partial(GroupRefinement, num_neighbors=4)
    encoder = BiXTEncoder(depth=3, num_latents=256, refinement=refinement)
    model = BiXTClassifier(40, tokenizer=PointTokenizer(192), encoder=encoder)
    assert encoder.latents.std().item() == pytest.approx(0.02, rel=0.03)
    assert encoder.latents.mean().item() == pytest.approx(0, abs=0.001)
    maps = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for layer in maps:
        assert layer.bias is None or not layer.bias.any()
        if layer is model.head:
            assert not layer.weight.any()
            continue
        limit = math.sqrt(
            6 / sum(layer.weight.shape)
        )  # of a uniform distribution, whose std is limit / sqrt(3)
        assert layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.05)
    assert len(maps) > 30


@pytest.mark.parametrize("depth", [1, 12])
def test_stochastic_depth_grows_linearly(depth):
    """0 in the first layer, 0.1 in the last, on every branch of a layer."""
    encoder = BiXTEncoder(depth=depth, dim=24, num_heads=2, num_latents=2)
    for i, block in enumerate(encoder.blocks):
        rates = [m.rate for m in block.modules() if isinstance(m, DropPath)]
        assert len(rates) == (4 if i == depth - 1 else 6)
        assert rates == pytest.approx([0.1 * i / max(depth - 1, 1)] * len(rates))


def test_one_projection_less_than_two_cross_attentions():
    """4 maps instead of 6: dim -> 2 dim on both sides and two output maps, against two times (q, kv, out)."""
    dim = 24
    both = bidirectional_cross(dim, dim, one_sided=False, num_heads=3).attention
    ours = sum(p.numel() for p in both.parameters())
    theirs = sum(
        p.numel()
        for n, p in sequential_cross(dim, dim, one_sided=False, num_heads=3).named_parameters()
        if "attention" in n
    )
    assert ours == 6 * dim * dim + 6 * dim
    assert theirs == 8 * dim * dim + 8 * dim


def test_fewest_points():
    assert classifier(**VARIANTS["naive"]).min_points == 1
    assert classifier(**VARIANTS["grouping"]).min_points == 4
    hierarchy = classifier(**VARIANTS["hierarchy"])
    assert hierarchy.min_points == 16  # 4 neighbours are left in layer 2, after two halvings
    hierarchy(torch.rand(2, 16, 3))
    with pytest.raises(
        ValueError, match=r"points: expected at least 16 in each cloud \(min_points .*, got 15"
    ):
        hierarchy(torch.rand(2, 15, 3))
    with pytest.raises(ValueError, match="points: expected at least 1 in each cloud"):
        classifier()(torch.rand(2, 0, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads: expected a positive divisor of the attention width 24, got 5"),
        ({"depth": 0}, "depth: expected at least 1, got 0"),
        ({"dim": 0}, "dim: expected at least 1, got 0"),
        ({"num_latents": -1}, "num_latents: expected at least 1, got -1"),
        ({"refine": "around"}, "refine: expected 'after' or 'before', got 'around'"),
        ({"share_cross": "some"}, "share_cross: expected one of all, all_but_first, none, got 'some'"),
        ({"share_cross": "all"}, "one-sided last layer"),
        ({"token_dims": [24, 24]}, "expected one width for each of the 3 layers, got 2"),
        ({"token_dims": [24, 24, 30]}, "layer 2 changes the width from 24 to 30"),
        ({"refinement_layers": [3], "refinement": REFINEMENT}, r"expected layers 0 to 2, got \[3\]"),
        ({"drop_path": 1.0}, "drop path rate: expected at least 0 and below 1, got 1.0"),
    ],
)
def test_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        classifier(**options)


def test_wrong_points():
    with pytest.raises(ValueError, match=r"expected shape \(B, N, 3\) with xyz, got \(2, 8, 6\)"):
        classifier()(torch.rand(2, 8, 6))
    with pytest.raises(ValueError, match=r"expected shape \(B, N, 6\) with xyz and normal, got \(2, 8, 3\)"):
        classifier(in_channels=6)(torch.rand(2, 8, 3))
    with pytest.raises(ValueError, match=r"tokenizer\.dim: expected the encoder's token width 24, got 12"):
        BiXTClassifier(7, tokenizer=PointTokenizer(12), encoder=BiXTEncoder(dim=24, num_heads=3))
