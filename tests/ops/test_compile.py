"""The ops inside torch.compile and torch.export: one graph, any batch size, any number of points."""

import pytest
import torch
from cases import grid
from torch import nn

from bixt3d import ops

CUSTOM_OPS = ("farthest_point_sample", "knn", "ball_query", "three_nn")


class EveryOp(nn.Module):
    """Group, pool, interpolate back, attend."""

    def __init__(self, backend=None, attention_backend=None):
        super().__init__()
        self.backend = backend
        self.attention_backend = attention_backend
        self.latents = nn.Parameter(grid(1, 2, 6, 8))

    def forward(self, points, features):
        backend = self.backend
        centers = ops.gather_points(
            points, ops.farthest_point_sample(points, 8, backend=backend), backend=backend
        )
        _, index = ops.knn(centers, points, 4, backend=backend)
        coarse = ops.group_points(features, index, backend=backend).amax(dim=2)
        index = ops.ball_query(centers, points, 0.3, 5, backend=backend)
        coarse = coarse + ops.group_points(features, index, backend=backend).mean(dim=2)
        sq_dist, index = ops.three_nn(points, centers, backend=backend)
        weights = 1 / (sq_dist + 1e-8)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        tokens = ops.three_interpolate(coarse, index, weights, backend=backend)
        tokens = tokens.unflatten(-1, (2, -1)).transpose(1, 2)
        return ops.bidirectional_attention(
            self.latents, self.latents, tokens, tokens, backend=self.attention_backend
        )


every_choice = pytest.mark.parametrize(
    "choice", [(None, None), ("torch", "sdpa"), ("torch", "reference")], ids=["automatic", "named", "unfused"]
)


def assert_close(got, expected):
    for out, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(out, wanted)


@every_choice
def test_compiles_into_one_graph(choice):
    model = EveryOp(*choice)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    for num_clouds, num_points in ((3, 40), (2, 33)):
        example = (grid(num_clouds, num_points, 3), grid(num_clouds, num_points, 16, seed=1))
        assert_close(compiled(*example), model(*example))


def test_a_compiled_graph_has_the_same_gradients():
    model = EveryOp()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    points, features = grid(3, 40, 3), grid(3, 40, 16, seed=1).requires_grad_()
    gradients = []
    for run in (compiled, model):
        loss = sum(out.square().sum() for out in run(points, features))
        gradients.append(torch.autograd.grad(loss, (features, model.latents)))
    assert_close(*gradients)


@every_choice
@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_any_batch_and_number_of_points(choice, strict):
    model = EveryOp(*choice).eval()
    dim = {0: torch.export.Dim("B", max=64), 1: torch.export.Dim("N", min=8, max=4096)}
    example = (grid(3, 40, 3), grid(3, 40, 16, seed=1))
    exported = torch.export.export(model, example, dynamic_shapes=(dim, dim), strict=strict)
    nodes = [str(node.target) for node in exported.graph.nodes if "bixt3d" in str(node.target)]
    nodes = [name for name in nodes if "attention" not in name]  # traced as whichever backend runs here
    assert sorted(nodes) == sorted(f"bixt3d.{name}.default" for name in CUSTOM_OPS)
    for num_clouds, num_points in ((1, 8), (2, 33)):
        other = (grid(num_clouds, num_points, 3, seed=2), grid(num_clouds, num_points, 16, seed=3))
        assert_close(exported.module()(*other), model(*other))


def test_autocast_inside_a_compiled_graph():
    model = EveryOp()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    example = (grid(2, 20, 3), grid(2, 20, 16, seed=1))
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = compiled(*example), model(*example)
    assert [out.dtype for out in got] == [torch.bfloat16] * 2
    assert_close(got, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", CUSTOM_OPS)
def test_registration_is_sound(name, dtype):
    points, query = grid(2, 12, 3).to(dtype), grid(2, 5, 3, seed=1).to(dtype)
    args = {
        "farthest_point_sample": (points, 4, torch.tensor([0, 3]), ""),
        "knn": (query, points, 3, ""),
        "ball_query": (query, points, 0.25, 3, "torch"),
        "three_nn": (query, points, ""),
    }[name]
    torch.library.opcheck(getattr(torch.ops.bixt3d, name).default, args)
