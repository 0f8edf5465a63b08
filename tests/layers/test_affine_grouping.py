"""Affine grouping against PointMLP's own outputs, and its projection against itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bixt3d.layers import AffineGrouping

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("normalize", ["anchor", "center"])
@pytest.mark.parametrize("use_xyz", [False, True])
def test_golden(normalize, use_xyz):
    with np.load(GOLDEN / f"pointmlp_grouper_{normalize}_{'xyz' if use_xyz else 'noxyz'}.npz") as file:
        golden = {k: torch.from_numpy(file[k]) for k in file.files}
    k = int(golden["k"])
    module = AffineGrouping(12, num_neighbors=k, reduction=4, normalize=normalize, use_xyz=use_xyz)
    module.load_state_dict(
        {"alpha": golden["state/affine_alpha"].flatten(), "beta": golden["state/affine_beta"].flatten()}
    )
    groups = module(golden["xyz"], golden["features"])
    assert torch.equal(groups.anchor_index, golden["fps_index"])
    torch.testing.assert_close(groups.centers, golden["new_xyz"], atol=0, rtol=0)

    def ordered(grouped):  # the order of an anchor's neighbours is not part of the contract
        order = grouped[..., 0].argsort(dim=2)
        return grouped.gather(2, order.unsqueeze(-1).expand_as(grouped))

    torch.testing.assert_close(ordered(groups.grouped), ordered(golden["grouped"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalize", ["anchor", "center"])
@pytest.mark.parametrize("use_xyz", [False, True])
@pytest.mark.parametrize("reduction", [1, 2])
def test_projection_equals_a_linear_map_of_the_groups(normalize, use_xyz, reduction):
    torch.manual_seed(0)
    module = AffineGrouping(6, num_neighbors=4, reduction=reduction, normalize=normalize, use_xyz=use_xyz)
    module = module.double()
    torch.nn.init.normal_(module.alpha)
    torch.nn.init.normal_(module.beta)
    linear = torch.nn.Linear(module.out_channels, 5).double()
    points = torch.rand(3, 20, 3, dtype=torch.float64)
    features = (torch.randn(3, 20, 6, dtype=torch.float64) + 3).requires_grad_()
    wanted = [features, module.alpha, module.beta, linear.weight, linear.bias]
    plain = linear(module(points, features).grouped)
    fused = module.project(points, features, linear).grouped
    torch.testing.assert_close(fused, plain, atol=1e-5, rtol=1e-5)  # statistics are float32
    weights = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad((fused * weights).sum(), wanted),
        torch.autograd.grad((plain * weights).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_projection_of_equal_features_has_finite_gradients():
    module = AffineGrouping(6, num_neighbors=4)
    features = torch.ones(2, 9, 6, requires_grad=True)
    linear = torch.nn.Linear(module.out_channels, 5)
    module.project(torch.rand(2, 9, 3), features, linear).grouped.square().sum().backward()
    assert features.grad.isfinite().all()


def test_bad_input():
    with pytest.raises(ValueError, match="normalize: expected 'anchor' or 'center', got 'mean'"):
        AffineGrouping(4, normalize="mean")
    with pytest.raises(ValueError, match=r"(?s)8.*5|5.*8"):
        AffineGrouping(4, num_neighbors=8)(torch.rand(1, 5, 3), torch.rand(1, 5, 4))
