"""The feature kernels across their blocks, and what they hand back in the backward pass."""

import pytest
import torch
from cases import within_budget

from bixt3d.ops import available_backends, gather_points, group_points, three_interpolate
from bixt3d.ops.backends import triton_runtime

DEVICE = "cpu" if triton_runtime.interpreted() else "cuda"
MISSING = available_backends("group_points")["triton"]
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # the interpreter runs them anywhere
needs_triton = pytest.mark.skipif(MISSING is not None, reason=f"triton {MISSING}")


def inputs(num_points=37, num_queries=35, num_channels=70, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, num_points, num_channels, generator=generator).bfloat16().to(DEVICE, dtype)
    index = torch.randint(num_points, (2, num_queries, 3), generator=generator)
    index[:, :5] = num_points - 1  # many uses of one point
    weights = torch.rand(2, num_queries, 3, generator=generator).bfloat16().to(DEVICE, dtype)
    return features, index.to(DEVICE), weights


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_interpolation_and_its_gradients_stay_in_the_budget(dtype):
    results = []
    for backend, precision in (("triton", dtype), ("torch", dtype), ("torch", torch.float64)):
        features, index, weights = inputs(dtype=dtype)
        leaves = [x.to(precision).requires_grad_() for x in (features, weights)]
        out = three_interpolate(leaves[0], index, leaves[1], backend=backend)
        results.append((out, *torch.autograd.grad(out.square().sum(), leaves)))
    for name, got, same_precision, exact in zip(("out", "features", "weights"), *results, strict=True):
        assert got.dtype == dtype, name
        within_budget(got, same_precision, exact)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_grouping_copies_and_adds_up(dtype):
    features, index, _ = inputs(dtype=dtype)
    features.requires_grad_()
    out = group_points(features, index, backend="triton")
    assert torch.equal(out, group_points(features, index, backend="torch"))
    (grad,) = torch.autograd.grad(out.sum(), features)
    uses = torch.stack([torch.bincount(rows.flatten(), minlength=37) for rows in index])
    assert torch.equal(grad, uses[..., None].to(dtype).expand_as(features))


@needs_triton
def test_the_backward_pass_is_the_same_in_every_run():
    features, index, weights = inputs()
    gradients = []
    for _ in range(2):
        leaf = features.clone().requires_grad_()
        three_interpolate(leaf, index, weights, backend="triton").pow(3).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


@needs_triton
def test_second_derivatives_equal_those_of_torch():
    seconds = []
    for backend in ("triton", "torch"):
        features, index, weights = inputs(5, 4, 3, torch.float64)
        leaves = (features.requires_grad_(), weights.requires_grad_())
        out = three_interpolate(leaves[0], index, leaves[1], backend=backend)
        first = torch.autograd.grad(out.pow(3).sum(), leaves, create_graph=True)
        seconds.append(torch.autograd.grad(sum(x.pow(2).sum() for x in first), leaves))
    for got, expected in zip(*seconds, strict=True):
        torch.testing.assert_close(got, expected)


@needs_triton
@pytest.mark.parametrize(
    "name",
    ["triton_gather", "triton_scatter_sum", "triton_interpolate", "triton_spread", "triton_row_products"],
)
def test_registration_is_sound(name):
    features, index, weights = inputs(5, 4, 3)
    features.requires_grad_()
    rows = features.detach()[:, :4].clone().requires_grad_()
    args = {
        "triton_gather": (features, index[:, :, 0]),
        "triton_scatter_sum": (rows, index[:, :, 0], 5),
        "triton_interpolate": (features, index, weights),
        "triton_spread": (rows, index, weights, 5),
        "triton_row_products": (rows, features, index, torch.float32),
    }[name]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.bixt3d, name).default, args, test_utils=tests)


@needs_triton
def test_compiles_into_one_graph_without_being_a_custom_op_itself():
    torch._dynamo.reset()

    def run(features, index, weights):
        rows = gather_points(features, index[:, :, 0], backend="triton")
        grouped = group_points(features, index, backend="triton").amax(dim=2)
        return rows + grouped + three_interpolate(features, index, weights, backend="triton")

    args = inputs(9, 6, 5)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*args), run(*args))


def test_complex_numbers_are_refused_with_the_reason():
    features = torch.zeros(1, 3, 2, dtype=torch.complex64)
    index = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(NotImplementedError, match="floats, integers and bools, not complex64"):
        gather_points(features, index, backend="triton")
