"""PointNet++ against its definition written down point by point, and sizes counted by hand."""

from itertools import pairwise

import pytest
import torch

from bixt3d.layers.pointwise import ChannelBatchNorm
from bixt3d.models import PointNet2Classifier, PointNet2Encoder
from bixt3d.models.pointnet import SetAbstraction

SMALL = {"num_samples": (12, 5), "radii": (0.5, 1.0), "max_neighbors": (4, 6)}
SMALL["widths"] = ((6, 8), (8, 10), (10, 16))
ALONE = {"num_samples": (), "radii": (), "max_neighbors": (), "widths": ((6, 8, 16),)}


def small(in_channels=3, **changes):
    torch.manual_seed(0)
    encoder = PointNet2Encoder(in_channels=in_channels, **{**SMALL, **changes})
    model = PointNet2Classifier(5, encoder=encoder, head_dims=(12, 8)).eval()
    for norm in model.modules():  # other statistics than those of a fresh model
        if isinstance(norm, ChannelBatchNorm):
            torch.nn.init.normal_(norm.running_mean, std=0.3)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    return model


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def maps(*dims):
    """Weights, biases and norms of so many linear maps."""
    return sum(a * b + b + 2 * b for a, b in pairwise(dims))


@pytest.mark.parametrize("dim", [0, 4])
def test_set_abstraction_is_what_it_says(dim):
    torch.manual_seed(1)
    stage = SetAbstraction(dim, (6, 7), num_samples=8, radius=0.6, max_neighbors=5).eval()
    points, features = torch.rand(2, 30, 3) * 2 - 1, torch.randn(2, 30, dim)
    out, centers = stage(features, points)
    for cloud in range(2):
        kept = [0]  # the first, then always the one that is farthest from those so far
        while len(kept) < 8:
            apart = torch.cdist(points[cloud].double(), points[cloud, kept].double())
            kept.append(int(apart.amin(dim=1).argmax()))
        assert torch.equal(centers[cloud], points[cloud, kept])
        for place, center in enumerate(points[cloud, kept]):
            near = [i for i in range(30) if (points[cloud, i] - center).norm() <= 0.6][:5]
            rows = torch.cat((points[cloud, near] - center, features[cloud, near]), dim=1)
            torch.testing.assert_close(out[cloud, place], stage.mlp(rows).amax(dim=0))


@pytest.mark.parametrize("in_channels", [3, 6])
def test_every_parameter_is_used(in_channels):
    model = small(in_channels).train()
    model(torch.rand(3, 20, in_channels)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_sizes():
    shared = maps(1024, 512, 256) + 256 * 40 + 40
    stages = maps(3, 64, 64, 128) + maps(131, 128, 128, 256) + maps(259, 256, 512, 1024)
    assert parameters(PointNet2Classifier(40, encoder=PointNet2Encoder())) == stages + shared == 1_475_688
    alone = PointNet2Encoder(**{**ALONE, "widths": ((64, 64, 64, 128, 1024),)})
    assert parameters(PointNet2Classifier(40, encoder=alone)) == maps(3, 64, 64, 64, 128, 1024) + shared


def test_without_set_abstraction_no_point_sees_another():
    model = small(**ALONE)
    points = torch.rand(2, 20, 3)
    expected = model.encoder.last(points).amax(dim=1)
    torch.testing.assert_close(model(points), model.head(expected))
    torch.testing.assert_close(model(points), model(points[:, torch.randperm(20)]))
    torch.testing.assert_close(model(points), model(points.repeat(1, 2, 1)))  # a set: twice is once


def test_a_shift_of_the_cloud_is_seen_by_the_last_stage_alone():
    model = small()
    points, shift = torch.rand(2, 20, 3), torch.tensor([0.25, -0.5, 0.125])
    before, after = (model.encoder(x)[2].tokens for x in (points, points + shift))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(model(points), model(points + shift), atol=1e-3)


def test_a_small_cloud_keeps_all_its_points():
    model = small()
    points = torch.rand(2, 7, 3)
    _, first, second, _ = model.encoder(points)
    assert torch.equal(first.centers.sort(dim=1).values, points.sort(dim=1).values)
    assert second.centers.shape == (2, 5, 3)
    assert model(points[:, :1]).isfinite().all()


def test_one_graph_serves_all_clouds_that_are_sampled():
    model = small()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for i, (clouds, count) in enumerate([(2, 40), (3, 50), (4, 33)]):
        points = torch.rand(clouds, count, 3)
        with torch.no_grad(), torch.compiler.set_stance("fail_on_recompile" if i else "default"):
            torch.testing.assert_close(compiled(points), model(points))
    torch.compiler.reset()


def test_bad_input():
    model = small()
    with pytest.raises(ValueError, match=r"points: expected at least 1 in each cloud .*, got 0"):
        model(torch.rand(1, 0, 3))
    with pytest.raises(ValueError, match=r"expected shape \(B, N, 3\) with xyz, got \(1, 20, 6\)"):
        model(torch.rand(1, 20, 6))
    with pytest.raises(ValueError, match=r"expected a number for each set abstraction, .* 2, 1, 2 and 3"):
        PointNet2Encoder(**{**SMALL, "radii": (0.5,)})
    with pytest.raises(ValueError, match=r"in_channels: expected 3 .* or 6 .*, got 4"):
        PointNet2Encoder(in_channels=4)
