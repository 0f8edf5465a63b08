"""Max-pooling over groups: values against numpy, gradients against what a maximum is."""

import numpy as np
import pytest
import torch
from cases import every_backend
from torch.autograd import gradcheck, gradgradcheck

from bixt3d.ops import available_backends, group_max

compiled = pytest.mark.usefixtures("library")
every_way = every_backend("group_max")
every_float = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])


def groups(*shape, dtype=torch.float32, seed=0):
    """Few different numbers, so that many are equal."""
    return torch.randint(-9, 9, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@every_way
@every_float
@pytest.mark.parametrize("k", [1, 2, 24, 256])
@pytest.mark.parametrize("channels", [1, 17, 64, 130])
def test_is_the_maximum(backend, dtype, k, channels):
    grouped = groups(2, 5, k, channels, dtype=dtype)
    for given in (grouped, grouped.clone().requires_grad_()):
        out = group_max(given, backend=backend).detach()
        assert out.dtype == dtype
        np.testing.assert_array_equal(out.double().numpy(), grouped.double().numpy().max(axis=2))


@every_way
@every_float
def test_the_gradient_goes_to_neighbours_that_hold_the_maximum(backend, dtype):
    grouped = groups(2, 6, 24, 67, dtype=dtype).requires_grad_()
    weights = torch.randint(1, 5, (2, 6, 67), generator=torch.Generator().manual_seed(1)).to(dtype)
    out = group_max(grouped, backend=backend)
    (grad,) = torch.autograd.grad(out, grouped, weights)
    held = grouped.detach() == grouped.detach().amax(dim=2, keepdim=True)
    assert not grad[~held].any()
    torch.testing.assert_close(grad.double().sum(dim=2), weights.double(), rtol=2e-2, atol=0)
    if backend != "reference":
        first = held & (held.cumsum(dim=2) == 1)
        assert torch.equal(grad, torch.where(first, weights.unsqueeze(2), 0))


@every_way
def test_differentiates_twice(backend):
    grouped = (
        torch.randperm(2 * 3 * 4 * 5, generator=torch.Generator().manual_seed(0)).double().view(2, 3, 4, 5)
    )

    def cubed(grouped):
        return (group_max(grouped, backend=backend) / 50) ** 3

    assert gradcheck(cubed, grouped.requires_grad_())
    assert gradgradcheck(cubed, grouped)


@every_way
@pytest.mark.parametrize("place", [0, 7, 11])
def test_nan_is_not_lost(backend, place):
    grouped = groups(1, 3, 12, 20)
    grouped[0, 1, place, 3::5] = torch.nan
    out = group_max(grouped.requires_grad_(), backend=backend)
    assert torch.equal(out.isnan(), grouped.isnan().any(dim=2))
    assert torch.equal(out.nan_to_num(0), grouped.amax(dim=2).nan_to_num(0))


@every_way
def test_infinities_are_numbers(backend):
    grouped = torch.tensor([[-torch.inf, -torch.inf], [-torch.inf, 3.0], [torch.inf, 1.0]]).view(1, 3, 2, 1)
    assert group_max(grouped.requires_grad_(), backend=backend).flatten().tolist() == [
        -torch.inf,
        3.0,
        torch.inf,
    ]


@every_way
@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 0)])
def test_nothing_gives_nothing(backend, shape):
    grouped = torch.zeros(shape, requires_grad=True)
    out = group_max(grouped, backend=backend)
    assert out.shape == (*shape[:2], shape[3])
    out.sum().backward()
    assert grouped.grad.shape == shape


@every_way
def test_input_and_gradient_need_not_be_contiguous(backend):
    plain = groups(2, 3, 4, 5).requires_grad_()
    odd = plain.detach().transpose(1, 3).contiguous().transpose(1, 3).requires_grad_()
    for grouped in (plain, odd):
        group_max(grouped, backend=backend).backward(torch.ones(1).expand(2, 3, 5))
    assert torch.equal(odd.grad, plain.grad)


@pytest.mark.usefixtures("level")
@every_float
@pytest.mark.parametrize("channels", [1, 17, 64, 130])
def test_every_instruction_set_gives_the_same(dtype, channels):
    grouped = groups(2, 5, 24, channels, dtype=dtype)
    grouped[1, 2, 7, ::3] = torch.nan
    weights = groups(2, 5, channels, dtype=dtype, seed=1)
    found = []
    for backend in ("cpu", "reference"):
        leaf = grouped.clone().requires_grad_()
        out = group_max(leaf, backend=backend)
        found.append((out, *torch.autograd.grad(out, leaf, weights)))
    (ours, grad), (wanted, _) = found
    torch.testing.assert_close(ours, wanted, rtol=0, atol=0, equal_nan=True)
    held = (grouped == wanted.unsqueeze(2)) | (grouped.isnan() & wanted.isnan().unsqueeze(2))
    first = held & (held.cumsum(dim=2) == 1)
    assert torch.equal(grad, torch.where(first, weights.unsqueeze(2), 0))


@compiled
def test_threads_change_nothing(monkeypatch):
    grouped = groups(3, 400, 24, 64).requires_grad_()
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        out = group_max(grouped, backend="cpu")
        found.append((out, *torch.autograd.grad(out.square().sum(), grouped)))
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


@compiled
def test_more_neighbours_than_a_byte_can_count_are_left_to_torch():
    grouped = groups(1, 2, 257, 3)
    assert torch.equal(group_max(grouped), grouped.amax(dim=2))
    assert available_backends("group_max", grouped)["cpu"] == "takes at most 256 neighbours"
    with pytest.raises(NotImplementedError, match="'cpu' takes at most 256 neighbours"):
        group_max(grouped, backend="cpu")


@compiled
def test_the_custom_ops_are_sound():
    grouped = torch.randn(2, 3, 4, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.bixt3d.cpu_group_max.default, (grouped,))
    winner = torch.randint(4, (2, 3, 5), dtype=torch.uint8)
    rows = torch.randn(2, 3, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.bixt3d.cpu_group_place.default, (rows, winner, 4))


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (torch.zeros(2, 3, 4), ValueError, r"grouped has shape \(2, 3, 4\), expected \(B, M, K, C\)"),
        (torch.zeros(2, 3, 0, 4), ValueError, "K at least 1"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.int64), TypeError, "grouped has dtype int64"),
        ([1.0], TypeError, "grouped has type list"),
    ],
)
def test_wrong_input_is_named(wrong, error, text):
    with pytest.raises(error, match=text):
        group_max(wrong)
