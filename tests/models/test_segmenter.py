"""What a BiXT segmenter promises, naive and encoder-decoder, whatever its weights."""

from functools import partial

import pytest
import torch

from bixt3d.layers import (
    GroupRefinement,
    PointTokenizer,
    bidirectional_cross,
    iterative_cross,
    sequential_cross,
)
from bixt3d.models import BiXTEncoder, BiXTSegmenter, PointMLPDecoder

REFINEMENT = partial(GroupRefinement, num_neighbors=4, width=8)
DECODER = partial(PointMLPDecoder, widths=(12, 8), num_blocks=1, context_dim=6, category_dim=5, head_dim=16)
VARIANTS = {
    "naive": {"category_at": None},
    "naive tokens": {"category_at": "tokens"},
    "naive latents": {"category_at": "latents"},
    "naive head": {"category_at": "head"},
    "naive sequential": {"cross": sequential_cross},
    "naive normals": {"in_channels": 6},
    "encoder-decoder": {"decoder": DECODER, "category_at": "head"},
    "encoder-decoder tokens": {"decoder": DECODER, "category_at": "tokens", "in_channels": 6},
    "encoder-decoder after": {"decoder": DECODER, "category_at": "head", "refine": "after"},
    "encoder-decoder widening": {
        "decoder": DECODER,
        "category_at": "head",
        "token_dim": 12,
        "token_dims": [16, 20],
    },
}


def segmenter(
    in_channels=3, decoder=None, category_at="tokens", num_categories=3, cross=bidirectional_cross, **options
) -> BiXTSegmenter:
    torch.manual_seed(0)
    settings = {"depth": 2, "dim": 24, "num_latents": 5, "num_heads": 3, "drop_path": 0.0, "dense": True}
    if decoder is not None:
        settings["refinement"] = partial(REFINEMENT, reduction=2)
    settings |= options
    model = BiXTSegmenter(
        7,
        num_categories,
        tokenizer=PointTokenizer(settings.get("token_dim", 24), in_channels=in_channels, scale=10.0),
        encoder=BiXTEncoder(cross=cross, **settings),
        decoder=decoder,
        category_at=category_at,
    )
    if decoder is None:
        torch.nn.init.normal_(model.head.weight)  # it starts at zero, which would hide everything
    return model


@pytest.fixture(params=VARIANTS, ids=[v.replace(" ", "-") for v in VARIANTS])
def model(request):
    return segmenter(**VARIANTS[request.param])


def cloud(model, batch=2, count=32):
    return torch.rand(batch, count, model.in_channels)


def test_every_trainable_parameter_is_used(model):
    """A trainable parameter without a gradient stops distributed training."""
    model(cloud(model), torch.tensor([0, 2])).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_only_what_nothing_reads_is_frozen():
    """The last layer's latents reach no point: moving what makes them changes no logit."""
    model = segmenter().eval()
    points, category = cloud(model), torch.tensor([0, 1])
    before = model(points, category)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen
    with torch.no_grad():
        for parameter in frozen:
            parameter.add_(1)
    torch.testing.assert_close(model(points, category), before, atol=0, rtol=0)


def test_logits_for_every_point(model):
    assert model.eval()(cloud(model), torch.tensor([0, 2])).shape == (2, 32, 7)


def test_the_category_is_read_where_it_enters(model):
    model.eval()
    points = cloud(model)
    with torch.no_grad():
        first, second = (model(points, torch.tensor(c)) for c in ([0, 0], [1, 1]))
        assert torch.equal(first, second) != model.takes_category
        if not model.takes_category:
            assert torch.equal(model(points), first)  # and may then be absent
            return
    with pytest.raises(ValueError, match="category: the model needs the category of each cloud, got None"):
        model(points)


@pytest.mark.parametrize("category_at", ["head", None])
def test_the_head_reads_each_normed_token_and_the_category(category_at):
    model = segmenter(category_at=category_at, in_channels=6).eval()
    torch.nn.init.normal_(model.norm.bias)
    points, category = cloud(model), torch.tensor([2, 0])
    _, tokens, centers = model.forward_features(points, category)
    normed = torch.nn.functional.layer_norm(tokens, (24,), model.norm.weight, model.norm.bias, eps=1e-6)
    by_hand = normed @ model.head.weight[:, :24].T + model.head.bias
    if category_at == "head":
        by_hand = by_hand + model.head.weight[:, 24 + category].T[:, None]
    torch.testing.assert_close(model(points, category), by_hand, atol=1e-5, rtol=1e-5)
    assert torch.equal(centers, points[..., :3])


def test_naive_logits_follow_a_permutation_of_the_points():
    model = segmenter().eval()
    points, order = cloud(model), torch.randperm(32)
    category = torch.tensor([0, 1])
    torch.testing.assert_close(
        model(points[:, order], category), model(points, category)[:, order], atol=1e-4, rtol=1e-4
    )


def test_clouds_of_a_batch_do_not_see_each_other(model):
    model.eval()
    points, category = cloud(model, batch=3), torch.tensor([0, 1, 2])
    alone = torch.cat([model(p[None], c[None]) for p, c in zip(points, category, strict=True)])
    torch.testing.assert_close(model(points, category), alone, atol=1e-4, rtol=1e-4)


def test_attention_and_levels():
    model = segmenter(**VARIANTS["encoder-decoder widening"]).eval()
    points = cloud(model)
    latents, _, centers, attention = model.forward_features(
        points, torch.tensor([0, 1]), return_attention=True
    )
    assert latents.shape == (2, 5, 24)
    assert centers.shape == (2, 8, 3)
    assert [a.maps.tokens_from_latents.shape[2] for a in attention] == [16, 8]
    tokens = model.tokenizer(points)
    out = model.encoder(tokens, points, return_levels=True)
    assert [level.tokens.shape for level in out.levels] == [(2, 32, 12), (2, 16, 16), (2, 8, 20)]
    assert torch.equal(out.levels[0].tokens, tokens)
    assert torch.equal(out.levels[-1].tokens, out.tokens)
    assert model.encoder(tokens, points).levels is None
    # each level is a subset of the points of the one before
    for finer, coarser in zip(out.levels, out.levels[1:], strict=False):
        same = (coarser.centers[:, :, None] == finer.centers[:, None]).all(dim=-1)
        assert same.any(dim=-1).all()


def test_one_category_needs_no_telling():
    model = segmenter(num_categories=1).eval()
    assert not model.takes_category
    assert model(cloud(model)).shape == (2, 32, 7)
    assert segmenter(num_categories=1, decoder=DECODER, category_at="head").decoder.category is None


@pytest.mark.parametrize("name", ["naive tokens", "encoder-decoder"])
def test_compiles_without_a_graph_break(name):
    model = segmenter(**VARIANTS[name]).eval()
    points, category = cloud(model), torch.tensor([0, 2])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(points, category), model(points, category), atol=1e-5, rtol=1e-5)
    torch.compiler.reset()


def test_bad_input():
    model = segmenter()
    points = cloud(model)
    with pytest.raises(ValueError, match=r"category: got 3, expected 0 to 2, one of the 3 categories"):
        model(points, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match=r"category: expected shape \(2,\), one per cloud, got \(1,\)"):
        model(points, torch.tensor([0]))
    with pytest.raises(TypeError, match=r"category: expected dtype torch\.int64, got torch\.float32"):
        model(points, torch.zeros(2))
    with pytest.raises(ValueError, match=r"expected shape \(B, N, 3\) with xyz, got \(2, 32, 6\)"):
        model(torch.rand(2, 32, 6), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dense": False}, r"encoder\.dense: expected true"),
        (
            {"category_at": "middle"},
            "category_at: expected one of head, latents, tokens or null, got 'middle'",
        ),
        ({"refinement": partial(REFINEMENT, reduction=2)}, "reduces the points by 4, but without a decoder"),
        ({"decoder": partial(DECODER, widths=(8,))}, "widths: expected 2, .* got 1"),
        ({"token_dim": 12, "token_dims": [24, 24]}, "layer 0 changes the width"),
    ],
)
def test_impossible_settings(options, message):
    with pytest.raises(ValueError, match=message):
        segmenter(**options)


def test_iterative_attention_never_updates_tokens():
    """A Perceiver's tokens carry nothing from the latents, so nothing of its latents could be trained."""
    with pytest.raises(ValueError, match="updates its tokens"):
        segmenter(cross=iterative_cross)
