"""Stochastic depth and the pointwise layers of PointMLP."""

import pytest
import torch
from torch import nn

from bixt3d.layers import DropPath, LinearNormAct, PointwiseResidual
from bixt3d.layers.residual import ResidualMLP


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    out = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    per_sample = out.flatten(1)
    assert ((per_sample == 0).all(1) | (per_sample == 1 / 0.75).all(1)).all()
    assert abs(out.mean().item() - 1) < 0.05  # 4000 draws: standard error 0.009


def test_drop_path_is_the_identity_in_evaluation():
    x = torch.rand(3, 2)
    assert DropPath(0.9).eval()(x) is x


def test_pointwise_layers_equal_one_by_one_convolutions():
    torch.manual_seed(0)
    block = PointwiseResidual(6, expansion=0.5, bias=True).train()
    x = torch.randn(2, 9, 6)
    conv1, conv2 = nn.Conv1d(6, 3, 1), nn.Conv1d(3, 6, 1)
    with torch.no_grad():
        conv1.weight.copy_(block.expand[0].weight[..., None])
        conv1.bias.copy_(block.expand[0].bias)
        conv2.weight.copy_(block.contract[0].weight[..., None])
        conv2.bias.copy_(block.contract[0].bias)
    inner = nn.BatchNorm1d(3)(conv1(x.mT)).relu()
    expected = (x.mT + nn.BatchNorm1d(6)(conv2(inner))).relu().mT
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4), (2, 3, 5, 4)])
def test_any_number_of_axes(shape):
    assert LinearNormAct(4, 7)(torch.randn(shape)).shape == (*shape[:-1], 7)


def test_a_single_row_has_no_variance_to_train_with():
    layer = LinearNormAct(4, 7)
    with pytest.raises(ValueError, match=r"2 values per channel.*shape \(1, 7\).*train.batch_size"):
        layer(torch.randn(1, 4))
    assert layer.eval()(torch.randn(1, 4)).shape == (1, 7)


def test_a_norm_of_torch_that_takes_channels_second_is_refused():
    """Also where the second axis is as long as there are channels, and it would normalise that one."""
    layer = nn.SyncBatchNorm.convert_sync_batchnorm(LinearNormAct(4, 7)).eval()
    with pytest.raises(TypeError, match="channels as the second axis"):
        layer(torch.randn(2, 7, 4))


class Halved(nn.Module):
    def forward(self, x):
        return x / 2


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("mlp.act", nn.GELU(approximate="tanh")),
        ("mlp.fc1", nn.Linear(24, 96, bias=False)),
        ("norm", nn.LayerNorm(24, elementwise_affine=False)),
        ("branch.drop_path", Halved()),
    ],
)
def test_an_mlp_is_what_its_modules_are(name, other):
    """Also where a module was replaced by one of the same class that computes something else."""
    torch.manual_seed(0)
    layer, x = ResidualMLP(24).eval(), torch.randn(2, 9, 24)
    parent, _, leaf = name.rpartition(".")
    setattr(layer.get_submodule(parent), leaf, other)
    mlp = layer.mlp
    by_hand = x + layer.branch.drop_path(mlp.fc2(mlp.act(mlp.fc1(layer.norm(x)))))
    torch.testing.assert_close(layer(x), by_hand, rtol=1e-6, atol=1e-6)
