"""Modules of one's own compute in evaluation, where layers go in chunks, what they compute with a gradient."""

import pytest
import torch
from torch import nn

from bixt3d.layers import PointTokenizer, bidirectional_cross
from bixt3d.models import BiXTClassifier, BiXTEncoder, BiXTSegmenter


def around(x):
    """The mean of a cloud, and each row's neighbour in it."""
    return x.mean(dim=1, keepdim=True) + x.roll(1, dims=1)


class CloudTokens(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim, self.in_channels, self.map = dim, 3, nn.Linear(3, dim)

    def forward(self, points):
        return self.map(points - around(points))


class CloudPointTokenizer(PointTokenizer):
    def forward(self, points):
        tokens = super().forward(points)
        return tokens - around(tokens)


class CloudNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x - around(x))


class CloudMLP(nn.Module):
    """Nothing of the shipped MLP is there."""

    def __init__(self, dim):
        super().__init__()
        self.map = nn.Linear(dim, dim)

    def forward(self, x):
        return self.map(around(x)).relu()


class Remembers(nn.Module):
    """A refinement that adds what the layer before it made, and keeps what it makes."""

    made: list = []  # noqa: RUF012

    def __init__(self, in_dim, out_dim):
        super().__init__()
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, tokens, centers, neighbor_index=None):
        before = self.made[-1] if self.made else 0
        self.made.append(tokens + self.map(tokens).relu() + before)
        return self.made[-1], centers, neighbor_index


class KeepingCross(nn.Module):
    def __init__(self, cross, made):
        super().__init__()
        self.cross, self.made = cross, made

    def forward(self, latents, tokens, *, return_attention=False):
        latents, tokens, maps = self.cross(latents, tokens, return_attention=return_attention)
        self.made.append(tokens)
        return latents, tokens, maps


def with_norm(*dims, **options):
    layer = bidirectional_cross(*dims, **options)
    if not options["one_sided"]:
        layer.token_norm = CloudNorm(dims[1])
    return layer


def with_mlp(*dims, **options):
    layer = bidirectional_cross(*dims, **options)
    if not options["one_sided"]:
        layer.token_mlp.mlp = CloudMLP(dims[1])
    return layer


def with_branch(*dims, **options):
    layer = bidirectional_cross(*dims, **options)
    if not options["one_sided"]:
        layer.token_mlp.branch = CloudMLP(dims[1])
    return layer


def build(kind=BiXTClassifier, tokenizer=PointTokenizer, **options):
    torch.manual_seed(0)
    sizes = {"depth": 3, "dim": 24, "num_latents": 5, "num_heads": 3, "chunk": 20}
    encoder = BiXTEncoder(**sizes, dense=kind is BiXTSegmenter, **options)
    model = kind(7, tokenizer=tokenizer(24), encoder=encoder).eval()
    nn.init.normal_(model.head.weight)
    return model


def same_in_evaluation(model):
    """Compare, of clouds that go in chunks of less than one of them, with what comes with a gradient."""
    points = torch.rand(3, 32, 3) * 2 - 1
    expected = model(points)
    Remembers.made = []
    with torch.inference_mode():
        torch.testing.assert_close(model(points), expected.detach(), rtol=1e-4, atol=1e-4)
    Remembers.made = []


@pytest.mark.parametrize("kind", [BiXTClassifier, BiXTSegmenter])
@pytest.mark.parametrize("tokenizer", [CloudTokens, CloudPointTokenizer])
def test_a_tokenizer_sees_whole_clouds(kind, tokenizer):
    same_in_evaluation(build(kind, tokenizer))


@pytest.mark.parametrize("cross", [with_norm, with_mlp, with_branch])
@pytest.mark.parametrize("kind", [BiXTClassifier, BiXTSegmenter])
def test_a_part_of_a_layer_sees_whole_clouds(kind, cross):
    model = build(kind, cross=cross)
    same_in_evaluation(model)
    model.train()(torch.rand(3, 32, 3)).square().sum().backward()
    own = [p for m in model.modules() if isinstance(m, CloudNorm | CloudMLP) for p in m.parameters()]
    assert own
    assert all(p.grad is not None for p in own)


@pytest.mark.parametrize("kind", [BiXTClassifier, BiXTSegmenter])
def test_what_a_refinement_keeps_stays_as_it_was(kind):
    Remembers.made = []
    same_in_evaluation(build(kind, refinement=Remembers))


def test_what_a_cross_layer_keeps_stays_as_it_was():
    """The first layer alone is of one's own; the next would write over what it made."""
    model, made = build(), []
    model.encoder.blocks[0].cross = KeepingCross(model.encoder.blocks[0].cross, made)
    points = torch.rand(3, 32, 3)
    model(points)
    with torch.no_grad():
        model(points)
    torch.testing.assert_close(made[1], made[0].detach(), rtol=1e-4, atol=1e-4)
