"""Parameter groups, schedule and running average against closed formulas."""

import math

import numpy as np
import pytest
import torch
from places import ROOT
from torch import nn

from bixt3d.config import build
from bixt3d.optim import ExponentialAverage, cosine_with_warmup, parameter_groups, step_decay
from bixt3d.tasks import Classification
from bixt3d.training.assembly import build_model


def schedule(steps, peak=0.5, **options):
    """Learning rates of the first ``steps`` steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = cosine_with_warmup(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


@pytest.mark.parametrize("warmup_epochs", [0, 2, 0.5])
@pytest.mark.parametrize("min_lr", [0.0, 0.1])
def test_schedule_against_its_formula(warmup_epochs, min_lr):
    rates = schedule(71, epochs=10, steps_per_epoch=7, warmup_epochs=warmup_epochs, min_lr=min_lr)
    warm = round(7 * warmup_epochs)
    step = np.arange(71)
    rising = 0.5 * (step + 1) / (warm + 1)
    falling = min_lr + (0.5 - min_lr) * (1 + np.cos(math.pi * (step - warm) / (70 - warm))) / 2
    np.testing.assert_allclose(rates, np.where(step < warm, rising, falling), rtol=1e-9, atol=1e-12)
    assert rates[warm] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(min_lr, abs=1e-12)


@pytest.mark.parametrize("warmup_epochs", [-1, 3, 4])
def test_warmup_that_does_not_fit_is_refused(warmup_epochs):
    with pytest.raises(ValueError, match=r"^warmup_epochs: expected at least 0 and below the 3 epochs"):
        schedule(1, epochs=3, steps_per_epoch=2, warmup_epochs=warmup_epochs)


def test_a_warmup_too_long_says_which_keys_to_change():
    with pytest.raises(
        ValueError, match=r"optim\.schedule\.warmup_epochs=0\.3\) or train longer \(train\.epochs"
    ):
        schedule(1, epochs=3, steps_per_epoch=2, warmup_epochs=10)
    schedule(1, epochs=3, steps_per_epoch=2, warmup_epochs=0.3)


@pytest.mark.parametrize("min_lr", [-0.1, 0.02])
def test_a_learning_rate_that_would_rise_is_refused(min_lr):
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.01}], lr=0.5)
    with pytest.raises(
        ValueError,
        match=r"^min_lr: .* at most the learning rate 0\.01, .*optim\.schedule\.min_lr or .*optim\.optimizer\.lr",
    ):
        cosine_with_warmup(optimizer, epochs=3, steps_per_epoch=2, min_lr=min_lr)
    for allowed in (0.0, 0.01):
        cosine_with_warmup(optimizer, epochs=3, steps_per_epoch=2, min_lr=allowed)


def test_steps_of_the_learning_rate_by_hand():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.003)
    scheduler = step_decay(optimizer, epochs=9, steps_per_epoch=3, every_epochs=2)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.003] * 6 + [0.0015] * 6 + [0.00075] * 6 + [0.000375] * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_epochs": 0}, "every_epochs: expected at least 1"),
        ({"factor": 0.0}, "factor: expected above 0"),
        ({"factor": 1.1}, "factor: expected above 0 and at most 1"),
    ],
)
def test_steps_that_cannot_be_are_refused(options, message):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match=message):
        step_decay(optimizer, epochs=2, steps_per_epoch=2, **options)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_running_average_against_its_formula(decay):
    model = nn.BatchNorm1d(1)  # two weights, two running statistics, one counter
    ema = ExponentialAverage(model, decay)
    values = [3.0, -1.0, 4.0, 1.5, -9.0, 2.6]
    expected = values[0]
    for t, value in enumerate(values):
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(value if tensor.is_floating_point() else 10 * t)
        ema.update_parameters(model)
        d = 0.0 if t == 0 else min(decay, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * value
        averaged = {**dict(ema.module.named_parameters()), **dict(ema.module.named_buffers())}
        assert averaged.pop("num_batches_tracked") == 10 * t, "a counter is not averaged"
        assert len(averaged) == 4
        for name, tensor in averaged.items():
            assert tensor.item() == pytest.approx(expected, rel=1e-5), name


def test_running_average_leaves_the_model_alone():
    model = nn.Linear(2, 2)
    ema = ExponentialAverage(model, 0.9)
    before = model.weight.clone()
    for _ in range(3):
        ema.update_parameters(model)
    ema.module.weight.data.zero_()
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"^ema_decay: expected at least 0 and below 1"):
        ExponentialAverage(nn.Linear(1, 1), decay)


MODELS = ["bixt_naive", "bixt_sequential", "bixt_iterative", "bixt_grouping", "bixt_hierarchy"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("decay_all", [False, True])
def test_every_parameter_is_in_exactly_one_group(tiny, model, decay_all):
    net = build_model(tiny(f"model={model}"), Classification("abc"))
    groups = parameter_groups(net, decay_all=decay_all)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted({id(p) for p in net.parameters()})
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in net.parameters())
    torch.optim.AdamW(groups, lr=0.1, weight_decay=0.1)  # refuses a parameter that comes twice


def test_shared_parameters_come_once(tiny):
    net = build_model(tiny("model=bixt_iterative", "model.encoder.depth=3"), Classification("ab"))
    with_repeats = [p for module in net.modules() for p in module.parameters(recurse=False)]
    assert len(with_repeats) > len(list(net.parameters())), "this model should share its cross layers"
    grouped = [p for group in parameter_groups(net) for p in group["params"]]
    assert len(grouped) == len(list(net.parameters()))


@pytest.mark.parametrize("model", MODELS)
def test_only_matrices_of_linear_maps_are_decayed(tiny, model):
    net = build_model(tiny(f"model={model}", "model.encoder.layer_scale=0.1"), Classification("ab"))
    names = {id(p): name for name, p in net.named_parameters()}
    decayed, rest = ([names[id(p)] for p in group["params"]] for group in parameter_groups(net))
    shapes = {name: p.dim() for name, p in net.named_parameters()}
    assert all(name.endswith(".weight") and shapes[name] == 2 for name in decayed)
    assert "encoder.latents" in rest
    assert all(name == "encoder.latents" or shapes[name] == 1 for name in rest)


def test_weights_of_convolutions_and_of_torchs_attention_are_decayed():
    net = nn.ModuleDict(
        {"conv": nn.Conv1d(3, 4, 1), "norm": nn.BatchNorm1d(4), "read": nn.MultiheadAttention(4, 2)}
    )
    names = {id(p): name for name, p in net.named_parameters()}
    decayed, rest = ([names[id(p)] for p in group["params"]] for group in parameter_groups(net))
    assert sorted(decayed) == ["conv.weight", "read.in_proj_weight", "read.out_proj.weight"]
    assert sorted(rest) == [
        "conv.bias",
        "norm.bias",
        "norm.weight",
        "read.in_proj_bias",
        "read.out_proj.bias",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "cfgs/model").glob("*.yaml")), ids=lambda path: path.stem)
def test_of_every_shipped_model_the_matrices_of_its_maps_are_decayed(compose, path):
    node = compose(ROOT / "cfgs/modelnet40_naive.yaml", f"model={path.stem}")["model"]
    sizes = {"num_classes": 4}
    if path.stem.startswith("bixt_seg") or path.stem.endswith("seg"):
        sizes = {"num_parts": 5, "num_categories": 3}
    with torch.device("meta"):
        net = build(node, "model", **sizes)
    found = [list(map(id, group["params"])) for group in parameter_groups(net)]
    # a last map to one class or part, of (1, C), is among them
    maps = {id(m.weight) for m in net.modules() if isinstance(m, nn.Linear) and m.weight.requires_grad}
    expected = [id(p) for p in net.parameters()]
    assert found == [[p for p in expected if p in maps], [p for p in expected if p not in maps]]


def test_matrices_of_other_names_are_decayed_and_tokens_are_not():
    net = nn.Module()
    net.lora_A, net.lora_B = nn.Parameter(torch.ones(2, 8)), nn.Parameter(torch.ones(8, 2))
    net.many = nn.ParameterList([torch.ones(3, 4), torch.ones(3)])
    net.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    net.to_one = nn.Linear(4, 1)
    net.latents, net.position = nn.Parameter(torch.ones(1, 8, 4)), nn.Parameter(torch.ones(1, 1, 4))
    net.factor = nn.Parameter(torch.ones(6, 1, 1))
    names = {id(p): name for name, p in net.named_parameters()}
    decayed, rest = ([names[id(p)] for p in group["params"]] for group in parameter_groups(net))
    weight_norm = "normed.parametrizations.weight.original"
    assert sorted(decayed) == ["lora_A", "lora_B", "many.0", f"{weight_norm}1", "to_one.weight"]
    assert sorted(rest) == [
        *("factor", "latents", "many.1", "normed.bias", f"{weight_norm}0", "position", "to_one.bias"),
    ]


def test_no_weight_decay_where_it_does_not_belong():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    optimizer = torch.optim.SGD(parameter_groups(model), lr=0.5, weight_decay=0.2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, 0.9 * before["0.weight"])
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(dict(model.named_parameters())[name], before[name]), name
