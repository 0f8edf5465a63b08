"""Fast paths stand aside where somebody watches, wraps or replaces the modules they would pass over."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from bixt3d.layers import BidirectionalCrossAttention, GroupRefinement, PointTokenizer
from bixt3d.layers.cross import BidirectionalCross
from bixt3d.layers.residual import ResidualMLP
from bixt3d.models import BiXTClassifier, BiXTEncoder
from bixt3d.models.pointmlp import PointMLPStage

STAGE = {"num_neighbors": 5, "reduction": 2, "normalize": "anchor", "use_xyz": True}
STAGE |= {"blocks_before": 1, "blocks_after": 1, "expansion": 1.0, "bias": True}


def layer(kind):
    torch.manual_seed(0)
    if kind == "refinement":
        return GroupRefinement(16, 16, num_neighbors=5, width=8).eval()
    if kind == "stage":
        return PointMLPStage(16, 12, **STAGE).eval()
    return ResidualMLP(16).eval()


def run(module):
    torch.manual_seed(1)
    features, points = torch.randn(2, 20, 16, requires_grad=True), torch.rand(2, 20, 3)
    if isinstance(module, ResidualMLP):
        return module(features)
    return module(features, points)[0]


# every linear map that an op can stand for, and the modules around it
MAPS = [("refinement", "transfer"), ("stage", "transfer.0"), ("mlp", "mlp.fc1"), ("mlp", "mlp.fc2")]
MODULES = [*MAPS, ("refinement", "grouping"), ("refinement", "transfer_norm"), ("refinement", "before")]
MODULES += [("stage", "transfer"), ("stage", "grouping"), ("mlp", "mlp"), ("mlp", "norm"), ("mlp", "mlp.act")]


def replace_forward(module, note):
    forward = module.forward
    module.forward = lambda *args: (note(), forward(*args))[1]


WATCHING = {
    "forward hook": lambda module, note: module.register_forward_hook(lambda *args: note()),
    "forward pre-hook": lambda module, note: module.register_forward_pre_hook(lambda *args: note()),
    "backward hook": lambda module, note: module.register_full_backward_hook(lambda *args: note()),
    "backward pre-hook": lambda module, note: module.register_full_backward_pre_hook(lambda *args: note()),
    "replaced forward": replace_forward,
}


@pytest.mark.parametrize("way", WATCHING)
@pytest.mark.parametrize(("kind", "name"), MODULES)
def test_whoever_watches_a_module_sees_it_called(kind, name, way):
    if name in ("grouping", "before") and way.startswith("backward"):
        pytest.skip("its inputs or outputs are no plain tensors, or it computes nothing")
    module, calls = layer(kind), []
    expected = run(module)
    WATCHING[way](module.get_submodule(name), lambda: calls.append(way))
    out = run(module)
    out.sum().backward()
    assert len(calls) == 1
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["refinement", "stage", "mlp"])
def test_hooks_on_all_modules_see_each_of_them(kind):
    module, seen = layer(kind), set()
    handle = nn.modules.module.register_module_forward_hook(lambda each, args, out: seen.add(each))
    try:
        run(module)
    finally:
        handle.remove()
    # those without anything inside that have work to do
    leaves = {m for m in module.modules() if not list(m.children()) and not isinstance(m, nn.Sequential)}
    assert leaves <= seen


@pytest.mark.parametrize("kind", ["refinement", "stage", "mlp"])
def test_the_way_around_has_the_same_gradients(kind):
    plain = layer(kind).double().train()
    watched = copy.deepcopy(plain)
    for module in watched.modules():
        module.register_forward_hook(lambda *args: None)
    torch.manual_seed(1)
    inputs = [torch.randn(2, 20, 16).double()] + [torch.rand(2, 20, 3).double()] * (kind != "mlp")
    found = []
    for module in (plain, watched):
        out = module(*inputs)
        out = out if kind == "mlp" else out[0]
        found.append(
            torch.autograd.grad((out * torch.linspace(-1, 1, out.shape[-1])).sum(), module.parameters())
        )
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(plain.state_dict(), watched.state_dict())


class Adapted(nn.Module):
    """A linear map with a low-rank addition, as adapters are written."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class AdaptedLinear(nn.Linear):
    """The same as a subclass."""

    def __init__(self, base):
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.load_state_dict(base.state_dict())
        self.down, self.up = Adapted(base).down, Adapted(base).up

    def forward(self, x):
        return super().forward(x) + self.up(self.down(x))


def replace(module, name, other):
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, other)


@pytest.mark.parametrize("adapter", [Adapted, AdaptedLinear])
@pytest.mark.parametrize(("kind", "name"), MAPS)
def test_an_adapter_adds_and_learns(kind, name, adapter):
    """As much as the same sum of matrices in one linear map, whose gradient gives those of the factors."""
    module, merged = layer(kind), layer(kind)
    adapted = adapter(copy.deepcopy(module.get_submodule(name)))
    replace(module, name, adapted)
    weight = merged.get_submodule(name).weight
    with torch.no_grad():
        weight += adapted.up.weight @ adapted.down.weight
    out, expected = run(module), run(merged)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(
        adapted.up.weight.grad, weight.grad @ adapted.down.weight.T, rtol=1e-3, atol=1e-4
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kept_as", ["hook", "parametrisation"])
@pytest.mark.parametrize(("kind", "name"), MAPS)
def test_a_weight_norm_scales_the_map(kind, name, kept_as):
    module, scaled = layer(kind), layer(kind)
    linear = module.get_submodule(name)
    if kept_as == "hook":
        nn.utils.weight_norm(linear)
        length = linear.weight_g
    else:
        parametrizations.weight_norm(linear)
        length = linear.parametrizations.weight.original0
    with torch.no_grad():
        length *= 3
        scaled.get_submodule(name).weight *= 3
    out = run(module)
    torch.testing.assert_close(out, run(scaled), rtol=1e-4, atol=1e-5)
    out.sum().backward()
    assert length.grad.abs().sum() > 0


@pytest.mark.parametrize(("kind", "name"), MAPS)
def test_pruned_weights_stay_away_through_training(kind, name):
    module = layer(kind).train()
    linear = module.get_submodule(name)
    prune.l1_unstructured(linear, "weight", amount=0.5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        run(module).square().mean().backward()
        assert linear.weight_orig.grad.abs().sum() > 0
        optimizer.step()
    prune.remove(linear, "weight")
    assert (linear.weight == 0).float().mean() == 0.5


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_is_near_the_model():
    torch.manual_seed(0)
    refinement = partial(GroupRefinement, num_neighbors=5, width=8)
    encoder = BiXTEncoder(depth=2, dim=24, num_latents=5, num_heads=3, refinement=refinement)
    model = BiXTClassifier(7, tokenizer=PointTokenizer(24), encoder=encoder).eval()
    nn.init.normal_(model.head.weight)
    points = torch.rand(2, 40, 3)
    with torch.no_grad():
        expected = model(points)
        out = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})(points)
    assert 0 < (out - expected).norm() < 0.1 * expected.norm()


def test_a_tokenizer_takes_any_map_in_its_precision():
    tokenizer = PointTokenizer(24).double()
    points = torch.rand(2, 9, 3)
    expected = tokenizer(points)
    tokenizer.proj = nn.Sequential(tokenizer.proj)
    torch.testing.assert_close(tokenizer(points), expected, rtol=0, atol=0)


def test_attention_of_ones_own_is_called_in_chunks_too():
    class Doubled(BidirectionalCrossAttention):
        def forward(self, latents, tokens, *, return_attention=False):
            ours, theirs, maps = super().forward(latents, tokens, return_attention=return_attention)
            return 2 * ours, 2 * theirs, maps

    torch.manual_seed(0)
    cross = BidirectionalCross(24, 24, num_heads=3).eval()
    cross.attention = Doubled(24, 24, num_heads=3)
    latents, tokens = torch.randn(2, 5, 24), torch.randn(2, 40, 24)
    expected = cross(latents, tokens)  # with a gradient nothing goes in chunks
    cross.chunk = 16
    with torch.no_grad():
        out = cross(latents, tokens)
    for got, wanted in zip(out[:2], expected[:2], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
