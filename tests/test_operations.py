"""Operations of a forward pass, against counts by hand."""

import pytest
import torch
from torch import nn

from bixt3d.layers import (
    GroupRefinement,
    PointTokenizer,
    bidirectional_cross,
    iterative_cross,
    sequential_cross,
)
from bixt3d.models import BiXTClassifier, BiXTEncoder
from bixt3d.operations import count_operations


def product(rows, inner, columns):
    return 2 * rows * inner * columns


def test_plain_maps_by_hand():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 5, bias=False)).train()
    assert count_operations(model, torch.rand(7, 3)) == product(7, 3, 8) + product(7, 8, 5)
    assert model.training
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    with torch.inference_mode():  # one row, which a batch norm in training refuses
        assert count_operations(model, torch.rand(1, 3)) == product(1, 3, 8) + product(1, 8, 5)


def attention(queries, keys, d, products=2):
    """Similarities, and what each side gets of the values of the other."""
    return products * product(queries, d, keys)


def maps(rows, d, outputs):
    return product(rows, d, outputs * d)


def test_a_map_of_groups_counts_once_for_each_point():
    """The first counter of torch that comes by would have the groups made: it watches all modules."""

    class Refined(nn.Module):
        def __init__(self):
            super().__init__()
            self.refinement = GroupRefinement(16, 16, num_neighbors=5, width=8, blocks_after=0, use_xyz=False)

        def forward(self, tokens, centers):
            return self.refinement(tokens, centers)[0]

    on_points, on_anchors = product(N, 8, 8), 2 * product(N, 8, 8) + product(1, 8, 8)
    expected = product(N, 16, 8) + on_points + on_anchors + product(N, 8, 16)
    assert count_operations(Refined(), torch.rand(1, N, 16), torch.rand(1, N, 3)) == expected


N, M, D = 50, 6, 16
MLP = 2 * 4  # ratio 4, there and back
SELF = maps(M, D, 4) + attention(M, M, D) + maps(M, D, MLP)
READ = maps(M, D, 2) + maps(N, D, 2) + attention(M, N, D) + maps(M, D, MLP)  # the latents read the tokens
CROSS = {
    "bidirectional": maps(M + N, D, 3) + attention(M, N, D, products=3) + maps(M + N, D, MLP),
    "sequential": READ + maps(N, D, 2) + maps(M, D, 2) + attention(N, M, D) + maps(N, D, MLP),
    "iterative": READ,
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bidirectional", {}),
        ("sequential", {"cross": sequential_cross}),
        ("iterative", {"cross": iterative_cross}),
    ],
)
@pytest.mark.parametrize("chunk", [None, 10])
def test_attention_by_hand(kind, options, chunk):
    encoder = BiXTEncoder(depth=3, dim=D, num_heads=2, num_latents=M, chunk=chunk, **options)
    model = BiXTClassifier(4, tokenizer=PointTokenizer(D, dims_per_axis=8), encoder=encoder)
    ends = product(N, 24, D) + product(1, D, 4)
    expected = ends + 2 * CROSS[kind] + READ + 3 * SELF
    assert count_operations(model, torch.rand(1, N, 3)) == expected
    # the learnt latents are mapped once for all clouds: to references and values, or to queries alone
    once = maps(M, D, 2 if kind == "bidirectional" else 1)
    assert count_operations(model, torch.rand(5, N, 3)) == 5 * (expected - once) + once


@pytest.mark.parametrize("cross", [bidirectional_cross, sequential_cross])
def test_a_backend_that_was_named_does_not_matter(cross):
    """Also where torch would see none of its operations."""
    encoder = BiXTEncoder(depth=2, dim=D, num_heads=2, num_latents=M, cross=cross)
    model = BiXTClassifier(4, tokenizer=PointTokenizer(D, dims_per_axis=8), encoder=encoder)
    expected = count_operations(model, torch.rand(2, N, 3))
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = "cpu"
    with torch.inference_mode():
        assert count_operations(model, torch.rand(2, N, 3)) == expected
