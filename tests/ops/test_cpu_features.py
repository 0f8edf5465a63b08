"""The compiled ops on features across widths, types, instruction sets and threads."""

import pytest
import torch
from cases import within_budget
from hypothesis import given, settings
from hypothesis import strategies as st

from bixt3d.ops import available_backends, gather_points, group_points, three_interpolate
from bixt3d.ops.backends import cpu_library

compiled = pytest.mark.skipif(not cpu_library.PATH.exists(), reason="the library is not compiled here")
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
every_float = pytest.mark.parametrize("dtype", FLOATS)
every_width = pytest.mark.parametrize("channels", [1, 3, 16, 67, 200])


def inputs(channels=5, dtype=torch.float32, num_clouds=2, num_points=37, num_rows=90):
    generator = torch.Generator().manual_seed(channels)
    features = torch.randn(num_clouds, num_points, channels, generator=generator).bfloat16().to(dtype)
    index = torch.randint(num_points, (num_clouds, num_rows, 3), generator=generator)
    index[:, :50] = num_points - 1  # many uses of one point
    weights = torch.rand(num_clouds, num_rows, 3, generator=generator).bfloat16().to(dtype)
    return features, index, weights


def grouped(backend, channels, dtype):
    features, index, _ = inputs(channels, dtype)
    features.requires_grad_()
    out = group_points(features, index, backend=backend)
    return out, torch.autograd.grad((out * out.detach()).sum(), features)[0]


def interpolated(backend, channels, dtype):
    features, index, weights = inputs(channels, dtype)
    leaves = features.requires_grad_(), weights.requires_grad_()
    out = three_interpolate(features, index, weights, backend=backend)
    return out, *torch.autograd.grad(out.square().sum(), leaves)


@every_float
@every_width
def test_rows_are_copied_and_added_up(level, channels, dtype):
    out, grad = grouped("cpu", channels, dtype)
    expected, same_precision = grouped("torch", channels, dtype)
    assert torch.equal(out, expected)
    assert grad.dtype == dtype
    within_budget(grad, same_precision, grouped("torch", channels, torch.float64)[1])


@every_float
@every_width
def test_interpolation_and_its_gradients_stay_in_the_budget(level, channels, dtype):
    results = [
        interpolated(backend, channels, precision)
        for backend, precision in (("cpu", dtype), ("torch", dtype), ("torch", torch.float64))
    ]
    for name, got, same_precision, exact in zip(("out", "features", "weights"), *results, strict=True):
        assert got.dtype == dtype, name
        within_budget(got, same_precision, exact)


@compiled
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(low, high) for low, high in ((0, 3), (1, 9), (0, 70), (0, 7), (1, 4)))),
    seed=st.integers(0, 999),
)
def test_whole_numbers_are_those_of_torch_in_every_shape(sizes, seed):
    num_clouds, num_points, channels, num_rows, neighbors = sizes
    generator = torch.Generator().manual_seed(seed)
    results = []
    features = torch.randint(-8, 9, (num_clouds, num_points, channels), generator=generator).float()
    index = torch.randint(num_points, (num_clouds, num_rows, neighbors), generator=generator)
    three = torch.randint(num_points, (num_clouds, num_rows, 3), generator=generator)
    weights = torch.randint(-4, 5, three.shape, generator=generator) / 4
    for backend in ("cpu", "torch"):
        leaf = features.clone().requires_grad_()
        groups = group_points(leaf, index, backend=backend)
        rows = three_interpolate(leaf, three, weights, backend=backend)
        loss = groups.square().sum() + rows.square().sum()
        results.append((groups, rows, *torch.autograd.grad(loss, leaf)))
    assert all(map(torch.equal, *results))


@compiled
def test_half_gradients_are_added_up_in_float32():
    # 2,000 uses of one point: in bfloat16 the sum would stop at 256.
    features = torch.zeros(1, 2, 4, dtype=torch.bfloat16, requires_grad=True)
    index = torch.zeros(1, 2000, dtype=torch.int64)
    gather_points(features, index, backend="cpu").sum().backward()
    assert features.grad[0, 0].tolist() == [2000.0] * 4
    assert features.grad[0, 1].tolist() == [0.0] * 4


@compiled
def test_rounding_to_bfloat16_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (1, 3, 4096), generator=generator).int()
    rows = bits.view(torch.float32)
    rows[0, 0, :4] = torch.tensor([float("nan"), float("inf"), -0.0, 3.4e38])
    weights = torch.tensor([[[1.0, 0, 0]]])
    halves = rows.bfloat16()
    got = three_interpolate(halves[:, :1], torch.zeros(1, 1, 3, dtype=torch.int64), weights, backend="cpu")
    expected = (halves[:, :1].float() * (1 + 0 * halves[:, :1].float())).bfloat16()
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.nan_to_num(7), expected.nan_to_num(7))


@compiled
@pytest.mark.parametrize("num_clouds", [1, 3, 16])
def test_threads_and_repeated_runs_change_nothing(threads, num_clouds):
    features, index, weights = inputs(200, num_clouds=num_clouds, num_points=300, num_rows=2000)
    results = []
    for count in (1, 2, 3, 2):
        threads(count)
        leaf = features.clone().requires_grad_()
        groups = group_points(leaf, index, backend="cpu")
        rows = three_interpolate(leaf, index, weights, backend="cpu")
        (grad,) = torch.autograd.grad(groups.pow(3).sum() + rows.pow(3).sum(), leaf)
        results.append((groups, rows, grad))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@compiled
@every_float
@pytest.mark.parametrize("name", ["cpu_gather", "cpu_scatter_sum", "cpu_interpolate", "cpu_spread"])
def test_registration_is_sound(name, dtype):
    features, index, weights = inputs(4, dtype, num_points=5, num_rows=4)
    index[:, :, :] = index % 5
    features.requires_grad_()
    rows = features.detach()[:, :4].clone().requires_grad_()
    args = {
        "cpu_gather": (features, index[:, :, 0]),
        "cpu_scatter_sum": (rows, index[:, :, 0], 5),
        "cpu_interpolate": (features, index, weights),
        "cpu_spread": (rows, index, weights, 5),
    }[name]
    torch.library.opcheck(getattr(torch.ops.bixt3d, name).default, args)


@compiled
def test_named_it_is_part_of_a_graph_and_unnamed_torch_is():
    torch._dynamo.reset()

    def run(features, index, weights, backend):
        rows = gather_points(features, index[:, :, 0], backend=backend)
        groups = group_points(features, index, backend=backend).amax(dim=2)
        return rows + groups + three_interpolate(features, index, weights, backend=backend)

    args = inputs(dtype=torch.float64)
    for backend, expected in (("cpu", 3), (None, 0)):
        nodes = []

        def compiler(graph, example, nodes=nodes):
            nodes += [node for node in graph.graph.nodes if "bixt3d" in str(node.target)]
            return graph

        compiled_run = torch.compile(run, fullgraph=True, backend=compiler)
        torch.testing.assert_close(compiled_run(*args, backend), run(*args, backend))
        assert len(nodes) == expected


@compiled
def test_it_comes_first_for_what_it_takes():
    features, index, weights = inputs()
    for op, args in (("group_points", (features, index)), ("three_interpolate", (features, index, weights))):
        first = next(name for name, reason in available_backends(op, *args).items() if not reason)
        assert first == "cpu"
    assert available_backends("gather_points", features.to("meta"))["cpu"] == "needs tensors on the CPU"
    reason = available_backends("gather_points", features.to(torch.complex64))["cpu"]
    assert reason == "copies floats, integers and bools, not complex64"


@compiled
def test_an_index_that_interpolation_cannot_use_is_named():
    features, index, weights = inputs()
    index[1, 7, 2] = 37
    with pytest.raises(ValueError, match=r"index holds 37, which is out of bounds: expected .* 0 to 36"):
        three_interpolate(features, index, weights, backend="cpu")
