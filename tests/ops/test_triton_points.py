"""The point kernels on a few awkward clouds, and on all of them where a device runs them.

The shared contract is tested with the ops, on this backend too where it runs; under the interpreter that takes
minutes, and what is here takes seconds.
"""

import pytest
import torch
from cases import CLOUDS, grid

from bixt3d.ops import available_backends, ball_query, farthest_point_sample, knn, three_nn
from bixt3d.ops.backends import triton_points, triton_runtime

DEVICE = "cpu" if triton_runtime.interpreted() else "cuda"
MISSING = available_backends("farthest_point_sample")["triton"]
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # the interpreter runs them anywhere
needs_triton = pytest.mark.skipif(MISSING is not None, reason=f"triton {MISSING}")
FEW = ("one_point", "two_points", "duplicates", "far_from_origin", "not_contiguous", "float64", "bfloat16")


def equal_to_the_reference(op, *args):
    got = op(*(x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in args), backend="triton")
    expected = op(*args, backend="reference")
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    assert all(torch.equal(one.cpu(), other) for one, other in pairs)


@needs_triton
@pytest.mark.parametrize("name", FEW)
def test_few_awkward_clouds(name):
    points = CLOUDS[name]
    query = torch.cat([points[:, :5], points[:, :2] + 2], dim=1)
    equal_to_the_reference(farthest_point_sample, points, (points.shape[1] + 1) // 2)
    equal_to_the_reference(ball_query, query, points, 0.25, 3)
    equal_to_the_reference(three_nn, query, points)
    if points.dtype != torch.float64:
        equal_to_the_reference(knn, query[:, :2], points, min(2, points.shape[1]))


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("name", CLOUDS)
def test_every_awkward_cloud(name):
    points = CLOUDS[name]
    num_points = points.shape[1]
    query = torch.cat([points[:, ::2], points[:, :2] + 2], dim=1)
    equal_to_the_reference(farthest_point_sample, points, num_points)
    for radius, max_neighbors in ((0.25, 3), (0.5, 7), (0.0078125, 2), (64.0, num_points + 2)):
        equal_to_the_reference(ball_query, query, points, radius, max_neighbors)
    equal_to_the_reference(three_nn, query, points)
    if points.dtype != torch.float64:
        for k in {1, (num_points + 1) // 2, num_points}:
            equal_to_the_reference(knn, query, points, k)


@pytest.mark.gpu
@needs_triton
def test_large_clouds_equal_the_torch_backend():
    points = torch.rand(2, 40_000, 3, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    query = points[:, :500]
    for op, args in (
        (farthest_point_sample, (points, 300)),
        (knn, (query, points, 128)),
        (ball_query, (query, points, 0.05, 32)),
        (three_nn, (query, points)),
    ):
        got, expected = op(*args, backend="triton"), op(*args, backend="torch")
        pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
        assert all(torch.equal(one, other) for one, other in pairs)


@needs_triton
@pytest.mark.parametrize("num_points", [31, 65])
def test_a_cloud_too_large_for_registers_is_sampled_the_same(monkeypatch, num_points):
    monkeypatch.setattr(triton_points, "REGISTER_POINTS", 16)
    monkeypatch.setattr(triton_points, "TILE_POINTS", 32)
    for points in (grid(2, num_points, 3, step=0.25, size=4), grid(2, num_points, 3).double()):
        equal_to_the_reference(farthest_point_sample, points, num_points)


@needs_triton
def test_lists_longer_than_a_tile_of_queries_and_points():
    points = grid(1, 70, 4, step=0.25, size=4)  # many ties, four axes, two tiles and a bit
    equal_to_the_reference(knn, points[:, :17], points, 17)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda p: knn(p.double(), p.double(), 2, backend="triton"), "not float64"),
        (lambda p: knn(p, p, 129, backend="triton"), "keeps at most 128 neighbours"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused_with_the_reason(call, reason):
    with pytest.raises(NotImplementedError, match=reason):
        call(grid(1, 130, 3))


def test_without_the_interpreter_the_cpu_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    points = grid(1, 4, 3)
    assert available_backends("three_nn", points, points)["triton"] == (
        "needs tensors on a CUDA device, got cpu"
    )


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(triton_runtime.sys.modules, "triton", raising=False)
    monkeypatch.setattr(triton_runtime.importlib.util, "find_spec", lambda name: None)
    assert "pip install triton" in available_backends("knn")["triton"]


def test_a_kernel_is_launched_on_the_device_of_its_tensors(monkeypatch):
    log = []

    class Guard:
        def __init__(self, tensor):
            log.append(("enter", tensor))

        __enter__ = __exit__ = lambda *args: None

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **options: log.append((grid, *args, options))

    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    points = grid(1, 4, 3)
    triton_runtime.launch(Kernel(), (7,), points, 5, BLOCK=32)
    assert log == [("enter", points), ((7,), points, 5, {"BLOCK": 32})]
