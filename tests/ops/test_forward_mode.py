"""The ops under torch.func and forward-mode AD, which custom ops with a gradient do not know."""

import pytest
import torch
from cases import every_backend
from torch.autograd import forward_ad

from bixt3d import ops
from bixt3d.ops.dispatch import BACKENDS


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


INDEX = torch.tensor([[[0, 3, 1], [4, 4, 2]], [[2, 0, 0], [1, 3, 4]]])
LATENTS, TOKENS = normal(2, 2, 3, 16), normal(2, 2, 5, 16, seed=1)
STREAM = (
    LATENTS,
    LATENTS,
    normal(2, 5, 32),
    *(normal(*s) for s in ((32,), (32,), (64, 32), (64,), (32, 32), (32,))),
)
# inputs that have a gradient, further positional ones
CASES = {
    "gather_points": ((normal(2, 5, 4),), (INDEX[:, 0],)),
    "group_points": ((normal(2, 5, 4),), (INDEX,)),
    "group_max": ((normal(2, 3, 4, 5),), ()),
    "neighbor_sum": ((normal(2, 5, 4),), (INDEX,)),
    "neighbor_max": ((normal(2, 5, 4),), (INDEX,)),
    "three_interpolate": ((normal(2, 5, 4),), (INDEX, normal(2, 2, 3, seed=2))),
    "bidirectional_attention": ((LATENTS, LATENTS + 1, TOKENS, TOKENS - 1), ()),
    "latent_attention": ((LATENTS, TOKENS, TOKENS - 1), ()),
    "stream_attention": (STREAM, ()),
    "residual_mlp": (tuple(normal(*s) for s in ((2, 5, 4), (4,), (4,), (8, 4), (8,), (4, 8), (4,))), ()),
}
every_op = pytest.mark.parametrize("op", CASES)


def scalar(op, backend=None):
    """The sum over the outputs of an op with a gradient, weighted so that no two elements count the same."""
    others = CASES[op][1]

    def run(*inputs):
        rest = [x.to(inputs[0].dtype) if x.is_floating_point() else x for x in others]
        out = getattr(ops, op)(*inputs, *rest, backend=backend)
        outputs = out[:2] if isinstance(out, tuple) else (out,)
        return sum((x * torch.linspace(1, 2, x[0].numel()).view(x[0].shape)).sum() for x in outputs)

    return run


def slope(op):
    """The derivative along the inputs themselves, by a difference in float64."""
    inputs = [x.double() for x in CASES[op][0]]
    run, step = scalar(op, "reference"), 1e-6
    high, low = (run(*(x * (1 + sign * step) for x in inputs)) for sign in (1, -1))
    return ((high - low) / (2 * step)).float()


def test_every_op_with_a_gradient_is_here():
    assert {op for op, rows in BACKENDS.items() if any(row.reverse_only for row in rows)} == set(CASES)


@every_op
def test_forward_mode(op):
    inputs = CASES[op][0]
    tangent = torch.func.jvp(scalar(op), inputs, inputs)[1]
    torch.testing.assert_close(tangent, slope(op), rtol=1e-3, atol=1e-3)
    with forward_ad.dual_level():
        out = scalar(op)(*(forward_ad.make_dual(x, x) for x in inputs))
        torch.testing.assert_close(forward_ad.unpack_dual(out).tangent, tangent)


@every_op
def test_reverse_mode(op):
    inputs = CASES[op][0]
    places = tuple(range(len(inputs)))
    leaves = [x.clone().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(scalar(op, "reference")(*leaves), leaves)
    for got, wanted in zip(torch.func.grad(scalar(op), places)(*inputs), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@every_op
def test_vmap(op):
    inputs = CASES[op][0]
    got = torch.func.vmap(scalar(op))(*(torch.stack([x, 2 * x]) for x in inputs))
    expected = torch.stack([scalar(op, "reference")(*(factor * x for x in inputs)) for factor in (1, 2)])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@every_op
def test_a_named_backend_without_forward_mode_says_so(op):
    inputs = CASES[op][0]
    for row in BACKENDS[op]:
        if not row.reverse_only:
            continue
        with pytest.raises(
            NotImplementedError, match=rf"{op} cannot run: backend '{row.name}' supports only reverse-mode AD"
        ):
            torch.func.jvp(scalar(op, row.name), inputs, inputs)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_forward_mode_inside_a_compiled_graph(compiler):
    inputs = CASES["bidirectional_attention"][0]
    run = scalar("bidirectional_attention")
    torch._dynamo.reset()
    compiled = torch.compile(lambda *x: torch.func.jvp(run, x, x)[1], backend=compiler)
    torch.testing.assert_close(compiled(*inputs), slope("bidirectional_attention"), rtol=1e-3, atol=1e-3)


@every_backend("farthest_point_sample")
def test_the_choice_of_points_is_a_constant(backend):
    if ops.available_backends("farthest_point_sample")[backend]:
        pytest.skip("does not run here")
    points = normal(2, 9, 3)

    def run(points):
        centers = ops.gather_points(points, ops.farthest_point_sample(points, 3, backend=backend))
        index = ops.knn(centers, points, 2)[1]
        return ops.group_points(points, index).square().sum()

    tangent = torch.func.jvp(run, (points,), (points,))[1]
    torch.testing.assert_close(tangent, 2 * run(points))
    torch.testing.assert_close((torch.func.grad(run)(points) * points).sum(), tangent)
