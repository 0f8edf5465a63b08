"""The variants in Python are the models that the configs of the same name build."""

import pytest
import torch
from places import ROOT

import bixt3d.models
from bixt3d.config import build, compose
from bixt3d.layers import iterative_cross

CONFIGS = ROOT / "cfgs" / "model"


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("name", ["bixt_naive", "bixt_grouping", "bixt_hierarchy"])
def test_classifiers_are_those_of_the_configs(name, channels, one_thread):
    node = compose(CONFIGS / f"{name}.yaml", [f"tokenizer.in_channels={channels}"], config_root=ROOT / "cfgs")
    same(lambda: build(node, num_classes=40), name, (40,), in_channels=channels)


@pytest.mark.parametrize("name", ["bixt_seg_naive", "bixt_seg_encdec"])
def test_segmenters_are_those_of_the_configs(name, one_thread):
    node = compose(CONFIGS / f"{name}.yaml", ["tokenizer.in_channels=6"], config_root=ROOT / "cfgs")
    theirs = {"num_parts": 50, "num_categories": 16}
    same(
        lambda: build(node, **theirs),
        name,
        (50, 16),
        in_channels=6,
        category=torch.tensor([3, 7]),
        num_points=2048,
    )


def same(from_config, name, arguments, *, in_channels, category=None, num_points=512):
    """The same modules, and with the same weights the same outputs and gradients, dropout included."""
    points = torch.rand(2, num_points, in_channels, generator=torch.Generator().manual_seed(1)) - 0.5
    models = from_config(), getattr(bixt3d.models, name)(*arguments, in_channels=in_channels)
    assert str(models[1]) == str(models[0])
    for parameter in models[0].parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # heads start at zero
    models[1].load_state_dict(models[0].state_dict())
    outputs = []
    for model in models:
        torch.manual_seed(0)
        outputs.append(model(points) if category is None else model(points, category))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0)
    torch.testing.assert_close(models[1].encoder.latents.grad, models[0].encoder.latents.grad, rtol=0, atol=0)


def test_changes_reach_the_encoder():
    model = bixt3d.models.bixt_hierarchy(
        5, depth=2, dim=48, num_heads=4, num_latents=8, cross=iterative_cross
    )
    assert model(torch.zeros(2, 128, 3)).shape == (2, 5)
    assert (len(model.encoder.blocks), model.tokenizer.dim, model.encoder.reduction) == (2, 48, 4)
    with pytest.raises(TypeError, match="num_layers"):
        bixt3d.models.bixt_naive(5, num_layers=3)
