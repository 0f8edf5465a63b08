"""A part that is given to a model comes in as it is; a part that is built starts as BiXT does."""

import copy
import math

import pytest
import torch
from torch import nn

from bixt3d.layers import GroupRefinement, PointTokenizer, bidirectional_cross, sequential_cross
from bixt3d.models import BiXTClassifier, BiXTEncoder, BiXTSegmenter

SIZES = {"depth": 2, "dim": 24, "num_latents": 5, "num_heads": 3}


def constant(module):
    """Give a module weights that no random start has."""
    for i, parameter in enumerate(module.parameters()):
        nn.init.constant_(parameter, 0.5 + i)
    return module


@pytest.mark.parametrize("model", [BiXTClassifier, BiXTSegmenter])
def test_a_model_leaves_trained_parts_alone(model):
    tokenizer, encoder = constant(PointTokenizer(24)), constant(BiXTEncoder(**SIZES, dense=True))
    before = [copy.deepcopy(part.state_dict()) for part in (tokenizer, encoder)]
    built = model(5, tokenizer=tokenizer, encoder=encoder)
    torch.testing.assert_close(built.tokenizer.state_dict(), before[0], rtol=0, atol=0)
    torch.testing.assert_close(built.encoder.state_dict(), before[1], rtol=0, atol=0)


@pytest.mark.parametrize("refine", ["before", "after"])
def test_an_encoder_leaves_the_layers_it_is_given_alone(refine):
    given = []

    def cross(*dims, **options):
        given.append(constant(bidirectional_cross(*dims, **options)))
        return given[-1]

    def refinement(*dims):
        given.append(constant(GroupRefinement(*dims, num_neighbors=4, width=8)))
        return given[-1]

    encoder = BiXTEncoder(**SIZES, cross=cross, refinement=refinement, refine=refine, dense=True)
    assert len(given) == 4
    assert all(module in set(encoder.modules()) for module in given)
    for module in given:
        for i, parameter in enumerate(module.parameters()):
            assert torch.equal(parameter, torch.full_like(parameter, 0.5 + i))


@pytest.mark.parametrize("cross", [bidirectional_cross, sequential_cross])
def test_every_linear_map_of_bixt_starts_xavier_uniform_without_bias(cross):
    encoder = BiXTEncoder(
        **{**SIZES, "dim": 96}, cross=cross, token_dims=[96, 64], refinement=GroupRefinement
    )
    model = BiXTClassifier(5, tokenizer=PointTokenizer(96), encoder=encoder)
    maps = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name != "head"}
    assert len(maps) > 30
    for name, linear in maps.items():
        largest = math.sqrt(6 / (linear.in_features + linear.out_features))
        assert linear.weight.abs().max() <= largest, name
        assert linear.weight.std().item() == pytest.approx(largest / math.sqrt(3), rel=0.05), name
        assert linear.bias is None or not linear.bias.any(), name


class EveryOther(nn.Module):
    """A refinement of one's own."""

    reduction, num_neighbors = 2, 3

    def __init__(self, in_dim, out_dim):
        super().__init__()
        self.map = nn.Linear(in_dim, out_dim)

    def forward(self, tokens, centers, neighbor_index=None):
        return self.map(tokens[:, ::2]), centers[:, ::2], None


class Mapped(nn.Linear):
    """One that says nothing of itself."""

    def forward(self, tokens, centers, neighbor_index=None):
        return super().forward(tokens), centers, neighbor_index


def test_a_refinement_of_ones_own_says_what_it_needs():
    encoder = BiXTEncoder(**SIZES, refinement=EveryOther, dense=True)
    assert (encoder.reduction, encoder.min_points) == (4, 6)
    with pytest.raises(ValueError, match="reduces the points by 4, but without a decoder"):
        BiXTSegmenter(5, tokenizer=PointTokenizer(24), encoder=encoder)
    quiet = BiXTEncoder(**SIZES, refinement=Mapped, dense=True)
    assert (quiet.reduction, quiet.min_points) == (1, 1)
    model = BiXTSegmenter(5, tokenizer=PointTokenizer(24), encoder=quiet)
    assert model(torch.rand(2, 7, 3)).shape == (2, 7, 5)
