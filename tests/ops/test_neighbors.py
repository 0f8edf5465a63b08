"""Sums and maxima over neighbours: values against numpy, gradients against hand-counted uses."""

import numpy as np
import pytest
import torch
from cases import every_backend
from torch.autograd import gradcheck, gradgradcheck

from bixt3d.ops import available_backends, neighbor_max, neighbor_sum

compiled = pytest.mark.usefixtures("library")
OPS = {"neighbor_sum": neighbor_sum, "neighbor_max": neighbor_max}
every_way = pytest.mark.parametrize(
    ("op", "backend"), [(op, name) for op in OPS for name in every_backend(op).args[1]]
)
every_op = pytest.mark.parametrize("op", OPS)
every_float = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])


def inputs(*shape, groups=5, k=6, dtype=torch.float32, seed=0):
    """Few different whole numbers, so that sums are exact and many maxima are shared; some neighbours repeat."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randint(-9, 9, shape, generator=generator).to(dtype)
    return features, torch.randint(shape[1], (shape[0], groups, k), generator=generator)


def expected(op, features, index):
    rows = features.double().numpy()[np.arange(len(features))[:, None, None], index.numpy()]
    return rows.sum(axis=2) if op == "neighbor_sum" else rows.max(axis=2)


@every_way
@every_float
@pytest.mark.parametrize("k", [1, 2, 24, 256])
@pytest.mark.parametrize("channels", [1, 17, 64, 130])
def test_reduces_the_neighbours(op, backend, dtype, k, channels):
    features, index = inputs(2, 7, channels, k=k, dtype=dtype)
    out = OPS[op](features, index, backend=backend)
    assert out.dtype == dtype
    # a sum of 256 numbers below 9 needs more than the 8 bits of bfloat16, and is rounded once
    wanted = torch.from_numpy(expected(op, features, index)).to(dtype)
    assert torch.equal(out, wanted)


@every_way
@every_float
def test_the_gradient_of_a_sum_counts_the_uses_of_a_point(op, backend, dtype):
    if op != "neighbor_sum":
        pytest.skip("of the sum")
    features, index = inputs(2, 7, 3, dtype=dtype)
    OPS[op](features.requires_grad_(), index, backend=backend).sum().backward()
    for cloud in range(2):
        uses = np.bincount(index[cloud].flatten().numpy(), minlength=7)
        np.testing.assert_array_equal(
            features.grad[cloud].double().numpy(), np.repeat(uses[:, None], 3, axis=1)
        )


@every_way
def test_the_gradient_of_a_maximum_goes_to_points_that_hold_it(op, backend):
    if op != "neighbor_max":
        pytest.skip("of the maximum")
    features, index = inputs(2, 7, 33)
    weights = torch.randint(1, 5, (2, 5, 33), generator=torch.Generator().manual_seed(1)).float()
    out = OPS[op](features.requires_grad_(), index, backend=backend)
    (grad,) = torch.autograd.grad(out, features, weights)
    assert grad.sum().item() == pytest.approx(weights.sum().item())
    for cloud in range(2):
        for channel in range(33):
            column = features[cloud, :, channel].detach()
            may = {
                i
                for group in index[cloud].tolist()
                for i in group
                if column[i] == max(column[j] for j in group)
            }
            assert set(grad[cloud, :, channel].nonzero().flatten().tolist()) <= may


@every_way
def test_differentiates_twice(op, backend):
    features = torch.randperm(2 * 6 * 3, generator=torch.Generator().manual_seed(0)).double().view(2, 6, 3)
    _, index = inputs(2, 6, 3, groups=4, k=3)

    def cubed(features):
        return (OPS[op](features, index, backend=backend) / 20) ** 3

    assert gradcheck(cubed, features.requires_grad_())
    assert gradgradcheck(cubed, features)


@every_way
def test_nan_is_not_lost(op, backend):
    features, index = inputs(1, 7, 20, k=3)
    features[0, 4, 3::5] = torch.nan
    out = OPS[op](features, index, backend=backend)
    inside = (index == 4).any(dim=2)[0]
    assert inside.any()
    assert not inside.all()
    assert torch.equal(out[0].isnan(), inside[:, None] & features[0, 4].isnan())


@every_way
@pytest.mark.parametrize(("shape", "groups"), [((0, 7, 3), 5), ((2, 7, 0), 5), ((2, 7, 3), 0)])
def test_nothing_gives_nothing(op, backend, shape, groups):
    features, index = (
        torch.zeros(shape, requires_grad=True),
        torch.zeros(shape[0], groups, 4, dtype=torch.int64),
    )
    out = OPS[op](features, index, backend=backend)
    assert out.shape == (shape[0], groups, shape[2])
    out.sum().backward()
    assert not features.grad.any()


@every_way
def test_inputs_and_gradient_need_not_be_contiguous(op, backend):
    features, index = inputs(2, 7, 5)
    plain, odd = features.clone().requires_grad_(), features.mT.contiguous().mT.requires_grad_()
    strided = torch.stack([index, index], dim=-1)[..., 0]
    for given, at in ((plain, index), (odd, strided)):
        OPS[op](given, at, backend=backend).backward(torch.ones(1).expand(2, 5, 5))
    assert torch.equal(odd.grad, plain.grad)


@pytest.mark.usefixtures("level")
@every_op
@every_float
@pytest.mark.parametrize("channels", [1, 17, 64, 130])
def test_every_instruction_set_gives_the_same(op, dtype, channels):
    features, index = inputs(2, 40, channels, groups=30, k=24, dtype=dtype)
    weights, _ = inputs(2, 30, channels, dtype=dtype, seed=1)
    leaf = features.clone().requires_grad_()
    out = OPS[op](leaf, index, backend="cpu")
    (grad,) = torch.autograd.grad(out, leaf, weights)
    assert torch.equal(out, torch.from_numpy(expected(op, features, index)).to(dtype))
    if op == "neighbor_sum":
        wanted = torch.zeros(2, 40, channels, dtype=torch.float64)
        wanted.scatter_add_(
            1,
            index.flatten(1)[..., None].expand(-1, -1, channels),
            weights.double().repeat_interleave(24, dim=1),
        )
        assert torch.equal(grad, wanted.to(dtype))
    else:
        assert torch.equal(grad.double().sum(dim=1), weights.double().sum(dim=1))


@compiled
@every_op
def test_threads_change_nothing(op, monkeypatch):
    features, index = inputs(3, 400, 64, groups=400, k=24)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        leaf = (features / 7).requires_grad_()
        out = OPS[op](leaf, index, backend="cpu")
        found.append((out, *torch.autograd.grad(out.square().sum(), leaf)))
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


@compiled
def test_more_neighbours_than_a_byte_can_count_are_left_to_torch():
    features, index = inputs(1, 7, 3, k=257)
    wanted = torch.from_numpy(expected("neighbor_max", features, index)).float()
    assert torch.equal(neighbor_max(features, index), wanted)
    assert available_backends("neighbor_max", features, index)["cpu"] == "takes at most 256 neighbours"
    assert available_backends("neighbor_sum", features, index)["cpu"] is None


@every_way
@pytest.mark.parametrize("bad", [-1, 7])
def test_an_index_out_of_range_is_an_error(op, backend, bad):
    features, index = inputs(2, 7, 3)
    index[1, 2, 4] = bad
    with pytest.raises(
        (ValueError, RuntimeError), match=rf"index .*{bad}|{bad} is out of bounds|out of bounds"
    ):
        OPS[op](features, index, backend=backend)


@compiled
def test_the_custom_ops_are_sound():
    features, index = torch.randn(2, 7, 5, requires_grad=True), torch.randint(7, (2, 3, 4))
    rows, winner = torch.randn(2, 3, 5, requires_grad=True), torch.randint(4, (2, 3, 5), dtype=torch.uint8)
    check, ops = torch.library.opcheck, torch.ops.bixt3d
    check(ops.cpu_neighbor_sum.default, (features, index))
    check(ops.cpu_neighbor_max.default, (features, index))
    check(ops.cpu_neighbor_scatter.default, (rows, index, None, 7))
    check(ops.cpu_neighbor_scatter.default, (rows, index, winner, 7))


@every_op
@pytest.mark.parametrize(
    ("features", "index", "error", "text"),
    [
        (
            torch.zeros(2, 7),
            torch.zeros(2, 3, 4, dtype=torch.int64),
            ValueError,
            r"features has shape \(2, 7\)",
        ),
        (torch.zeros(2, 7, 3), torch.zeros(2, 3, dtype=torch.int64), ValueError, r"expected \(B, M, K\)"),
        (torch.zeros(2, 7, 3), torch.zeros(2, 3, 0, dtype=torch.int64), ValueError, "K at least 1"),
        (torch.zeros(2, 7, 3), torch.zeros(2, 3, 4), TypeError, "index has dtype float32"),
        (torch.zeros(2, 7, 3).long(), torch.zeros(2, 3, 4).long(), TypeError, "features has dtype int64"),
    ],
)
def test_wrong_input_is_named(op, features, index, error, text):
    with pytest.raises(error, match=text):
        OPS[op](features, index)
