"""Refinement of tokens by their neighbours, with and without writing the groups down."""

import copy

import pytest
import torch

from bixt3d.layers import GroupRefinement
from bixt3d.layers.pointwise import recomputing


def refinement(**options):
    """A refinement whose norm has rising and falling channels, and running statistics of its own."""
    torch.manual_seed(0)
    module = GroupRefinement(16, 24, num_neighbors=5, width=8, **options)
    norm = module.transfer_norm
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.7, 0.01, 2.0, -1.0, 0.3, -0.01, 1.0]))
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return module


def seeing_groups(module):
    """The same module with a hook on its norm, which wants to see the groups."""
    watched = copy.deepcopy(module)
    watched.transfer_norm.register_forward_hook(lambda module, args, out: None)
    return watched


def run(module, tokens, centers):
    tokens = tokens.clone().requires_grad_()
    out, *_ = module(tokens, centers)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    wanted = [tokens, *module.parameters()]
    grads = torch.autograd.grad((out * weights).sum(), wanted)
    return out.detach(), grads, module.transfer_norm


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("normalize", ["anchor", "center"])
@pytest.mark.parametrize("reduction", [1, 2])
def test_groups_need_not_be_made(training, normalize, reduction):
    module = refinement(normalize=normalize, reduction=reduction).double().train(training)
    other = seeing_groups(module)
    tokens, centers = torch.randn(3, 20, 16).double(), torch.rand(3, 20, 3).double()
    out, grads, norm = run(module, tokens, centers)
    wanted, wanted_grads, wanted_norm = run(other, tokens, centers)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(norm.state_dict(), wanted_norm.state_dict(), rtol=1e-10, atol=1e-10)


def test_flat_channels_are_flat():
    module = refinement()
    torch.nn.init.zeros_(module.transfer_norm.weight)
    tokens, centers = torch.randn(2, 20, 16), torch.rand(2, 20, 3)
    out, *_ = run(module, tokens, centers)
    wanted, *_ = run(seeing_groups(module), tokens, centers)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)


def test_a_mean_far_from_zero_does_not_cancel():
    module = refinement()
    with torch.no_grad():
        module.narrow.bias.add_(300)
    tokens, centers = torch.randn(2, 40, 16), torch.rand(2, 40, 3)
    exact, *_ = run(seeing_groups(module).double(), tokens.double(), centers.double())
    out, *_ = run(module, tokens, centers)
    torch.testing.assert_close(out, exact.float(), rtol=2e-3, atol=2e-3)


def test_half_precision_is_as_near_as_with_groups():
    module = refinement()
    tokens, centers = torch.randn(2, 60, 16), torch.rand(2, 60, 3)
    exact, *_ = run(seeing_groups(module).double(), tokens.double(), centers.double())
    errors = []
    for each in (module, seeing_groups(module)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, *_ = run(each, tokens, centers)
        errors.append((out.double() - exact).square().mean().sqrt().item())
    assert errors[0] < 1.2 * errors[1]


def test_the_groups_are_not_kept_for_the_backward_pass():
    module = refinement()
    tokens, centers = torch.randn(2, 64, 16, requires_grad=True), torch.rand(2, 64, 3)

    def largest(each):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            each(tokens, centers)
        return max(sizes)

    groups = 2 * 64 * 5 * 8
    assert largest(seeing_groups(module)) == groups
    assert largest(module) <= 2 * 64 * 24  # the tokens


def test_a_repeated_forward_pass_counts_once():
    module = refinement().train()
    tokens, centers = torch.randn(2, 20, 16), torch.rand(2, 20, 3)
    once = copy.deepcopy(module)
    once(tokens, centers)
    first, again = recomputing(module)
    with first:
        module(tokens, centers)
    with again:
        module(tokens, centers)
    assert module.transfer_norm.num_batches_tracked == 1
    torch.testing.assert_close(module.transfer_norm.running_var, once.transfer_norm.running_var)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_those_of_torch(momentum):
    """Also as the mean over all batches, which ``torch.optim.swa_utils.update_bn`` asks for."""
    module = refinement().train()
    module.transfer_norm.reset_running_stats()
    module.transfer_norm.momentum = momentum
    other = seeing_groups(module)
    for _ in range(3):
        tokens, centers = torch.randn(2, 20, 16), torch.rand(2, 20, 3)
        module(tokens, centers)
        other(tokens, centers)
    torch.testing.assert_close(
        module.transfer_norm.state_dict(), other.transfer_norm.state_dict(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("training", [True, False])
def test_without_running_statistics_those_of_the_batch_serve(training):
    module = refinement().train(training)
    norm = module.transfer_norm
    norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    tokens, centers = torch.randn(2, 20, 16), torch.rand(2, 20, 3)
    torch.testing.assert_close(
        module(tokens, centers)[0], seeing_groups(module)(tokens, centers)[0], rtol=1e-5, atol=1e-5
    )


def test_a_norm_without_weights_is_one_too():
    module = refinement().train()
    module.transfer_norm = type(module.transfer_norm)(8, affine=False)
    tokens, centers = torch.randn(2, 20, 16), torch.rand(2, 20, 3)
    torch.testing.assert_close(
        module(tokens, centers)[0], seeing_groups(module)(tokens, centers)[0], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_changes_nothing(training):
    module = refinement().train(training)
    before = copy.deepcopy(module.state_dict())
    out = module(torch.randn(0, 20, 16), torch.rand(0, 20, 3))[0]
    assert out.shape == (0, 20, 24)
    out.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())
    for name, value in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_norm_of_torch_that_takes_channels_second_is_refused():
    module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(refinement().eval())
    with pytest.raises(TypeError, match=r"channels as the second axis.*leave out convert_sync_batchnorm"):
        module(torch.randn(2, 20, 16), torch.rand(2, 20, 3))


def test_follows_a_permutation_of_the_points():
    torch.manual_seed(0)
    module = GroupRefinement(16, 16, num_neighbors=5, width=8).eval()
    tokens, centers = torch.randn(2, 40, 16), torch.rand(2, 40, 3)
    order = torch.randperm(40)
    out, _, _ = module(tokens, centers)
    permuted, moved, _ = module(tokens[:, order], centers[:, order])
    torch.testing.assert_close(permuted, out[:, order], atol=1e-5, rtol=1e-5)
    assert torch.equal(moved, centers[:, order])


def test_reduces_and_widens():
    module = GroupRefinement(16, 24, num_neighbors=5, reduction=2, width=8)
    tokens, centers, neighbors = module(torch.randn(2, 41, 16), torch.rand(2, 41, 3))
    assert tokens.shape == (2, 20, 24)
    assert centers.shape == (2, 20, 3)
    assert neighbors is None


def test_reuses_neighbors_of_the_same_points():
    torch.manual_seed(0)
    module = GroupRefinement(16, 16, num_neighbors=5, width=8).eval()
    tokens, centers = torch.randn(1, 30, 16), torch.rand(1, 30, 3)
    first, _, neighbors = module(tokens, centers)
    again, _, _ = module(tokens, centers, neighbors)
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    wrong = torch.zeros_like(neighbors)
    other, _, _ = module(tokens, centers, wrong)
    assert not torch.allclose(first, other)
    fewer, _, _ = module(tokens, centers, wrong[..., :3])  # of a layer with other groups: of no use here
    torch.testing.assert_close(fewer, first, atol=0, rtol=0)


def test_the_factor_scales_what_is_added():
    torch.manual_seed(0)
    module = GroupRefinement(16, 16, num_neighbors=5, width=8, layer_scale=1.0).eval()
    tokens, centers = torch.randn(2, 30, 16), torch.rand(2, 30, 3)
    whole = module(tokens, centers)[0] - tokens
    torch.nn.init.constant_(module.scale.gamma, 0.25)
    torch.testing.assert_close(module(tokens, centers)[0] - tokens, 0.25 * whole, atol=1e-6, rtol=1e-5)
