"""The cross layers: gradients against finite differences, and modules that were replaced."""

import pytest
import torch
from torch import nn

from bixt3d.layers import bidirectional_cross, iterative_cross, sequential_cross
from bixt3d.layers.cross import BidirectionalCross


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("build", [bidirectional_cross, sequential_cross, iterative_cross])
def test_gradients_are_those_of_finite_differences(build, one_sided):
    """Of all that comes out, in both streams that go in and in every parameter."""
    torch.manual_seed(0)
    layer = build(6, 8, one_sided=one_sided, num_heads=3, mlp_ratio=1.0).double()
    streams = [torch.randn(2, count, dim).double().requires_grad_() for count, dim in ((2, 6), (4, 8))]
    assert torch.autograd.gradcheck(
        lambda latents, tokens, *_: layer(latents, tokens)[:2],
        (*streams, *layer.parameters()),
        fast_mode=True,
    )


@pytest.mark.parametrize("name", ["token_norm", "attention.token_ref_val", "attention.token_proj"])
def test_in_chunks_a_layer_is_what_its_modules_are(name):
    torch.manual_seed(0)
    layer = BidirectionalCross(24, 24, num_heads=3).eval()
    others = {
        "token_norm": nn.LayerNorm(24, bias=False),
        "attention.token_ref_val": nn.Linear(24, 48, bias=False),
        "attention.token_proj": nn.Linear(24, 24, bias=False),
    }
    parent, _, leaf = name.rpartition(".")
    setattr(layer.get_submodule(parent), leaf, others[name])
    latents, tokens = torch.randn(2, 5, 24), torch.randn(2, 40, 24)
    plain = layer(latents, tokens)  # with a gradient nothing goes in chunks
    layer.chunk = 16
    with torch.no_grad():
        chunked = layer(latents, tokens)
    for got, expected in zip(chunked[:2], plain[:2], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
