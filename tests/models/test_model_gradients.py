"""Gradients of every kind of model: by the points against finite differences in float64, and with torch.func."""

from functools import partial

import pytest
import torch
from torch import nn

from bixt3d.layers import GroupRefinement, PointTokenizer
from bixt3d.models import (
    BiXTClassifier,
    BiXTEncoder,
    BiXTSegmenter,
    PointMLPClassifier,
    PointMLPDecoder,
    PointMLPEncoder,
    PointMLPSegmenter,
    PointNet2Classifier,
    PointNet2Encoder,
)

HALVING = partial(GroupRefinement, num_neighbors=4, width=8, reduction=2)
DECODER = partial(PointMLPDecoder, widths=(12, 8), num_blocks=1, context_dim=6, category_dim=5, head_dim=16)
POINTMLP = {"embedding_dim": 8, "width_factors": (2, 2), "num_neighbors": (6, 6), "reductions": (2, 2)}
POINTMLP |= {"blocks_before": (1, 1), "blocks_after": (1, 1), "use_xyz": True}
POINTNET2 = {"num_samples": (12, 5), "radii": (0.5, 1.0), "max_neighbors": (4, 6)}
POINTNET2 |= {"widths": ((6, 8), (8, 10), (10, 16))}
STEP = 1e-6


def bixt(kind, *arguments, encoder=(), **options):
    settings = {"depth": 2, "dim": 24, "num_latents": 5, "num_heads": 3, **dict(encoder)}
    return kind(
        *arguments, tokenizer=PointTokenizer(24, scale=4.0), encoder=BiXTEncoder(**settings), **options
    )


MODELS = {
    "classifier": lambda: bixt(BiXTClassifier, 7),
    "hierarchy": lambda: bixt(BiXTClassifier, 7, encoder={"refinement": HALVING}),
    "segmenter": lambda: bixt(BiXTSegmenter, 7, 3, encoder={"dense": True}),
    "decoder": lambda: bixt(
        BiXTSegmenter, 7, 3, encoder={"dense": True, "refinement": HALVING}, decoder=DECODER
    ),
    "pointmlp": lambda: PointMLPClassifier(7, encoder=PointMLPEncoder(**POINTMLP), head_dims=(16, 8)),
    "pointnet++": lambda: PointNet2Classifier(7, encoder=PointNet2Encoder(**POINTNET2), head_dims=(16, 8)),
    "pointmlp segmenter": lambda: PointMLPSegmenter(
        7, 3, encoder=PointMLPEncoder(**POINTMLP), decoder=DECODER
    ),
}


@pytest.fixture(params=MODELS, ids=[name.replace(" ", "-") for name in MODELS])
def model(request):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    if isinstance(getattr(model, "head", None), nn.Linear):
        nn.init.normal_(model.head.weight)  # it starts at zero, which would hide everything
    return model


def category_of(model):
    """What two clouds are, for a model that is told."""
    return [torch.tensor([0, 2])] if isinstance(model, BiXTSegmenter | PointMLPSegmenter) else []


def objective(model):
    """A scalar of points (2, 48, 3): all logits, each with a weight of its own."""
    category = category_of(model)

    def value(points):
        logits = model(points, *category)
        return (logits * torch.linspace(-1, 2, logits.numel()).to(logits).view_as(logits)).sum()

    return value


def gradient(value, points):
    points = points.clone().requires_grad_()
    return torch.autograd.grad(value(points), points)[0]


def test_finite_differences(model):
    """In single coordinates and along a random direction; in float64, where the plain backends run."""
    model.double()
    value = objective(model)
    points = torch.rand(2, 48, 3, dtype=torch.float64) * 2 - 1
    found = gradient(value, points)
    directions = torch.zeros(12, *points.shape, dtype=torch.float64)
    for row in range(8):
        directions[row, row % 2, 6 * row, row % 3] = 1
    directions[8:].normal_()
    for direction in directions:
        with torch.no_grad():
            slope = (value(points + STEP * direction) - value(points - STEP * direction)) / (2 * STEP)
        torch.testing.assert_close((found * direction).sum(), slope, rtol=1e-4, atol=1e-5)


def test_float32(model):
    """The backends of float32 against the plain ones of float64."""
    points = torch.rand(2, 48, 3) * 2 - 1
    found = gradient(objective(model), points)
    expected = gradient(objective(model.double()), points.double())
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_torch_func_gradients(model):
    """By the parameters: of the whole batch, and of each cloud for itself."""
    inputs = (torch.rand(2, 48, 3) * 2 - 1, *category_of(model))
    leaves = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def loss(parameters, *inputs):
        return torch.func.functional_call(model, parameters, inputs).square().sum()

    def loss_of_one(parameters, *inputs):
        return loss(parameters, *(x.unsqueeze(0) for x in inputs))

    def check(found, *inputs):
        expected = torch.autograd.grad(model(*inputs).square().sum(), list(leaves.values()))
        for name, wanted in zip(leaves, expected, strict=True):
            torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())

    parameters = {name: p.detach() for name, p in leaves.items()}
    check(torch.func.grad(loss)(parameters, *inputs), *inputs)
    each = torch.func.vmap(torch.func.grad(loss_of_one), (None, *(0 for _ in inputs)))(parameters, *inputs)
    for i in range(2):
        check({name: rows[i] for name, rows in each.items()}, *(x[i : i + 1] for x in inputs))


def test_torch_func_jacobian(model):
    """By the points, row by row against reverse mode."""
    points, category = torch.rand(2, 48, 3) * 2 - 1, category_of(model)
    found = torch.func.jacrev(lambda points: model(points, *category).flatten(1).mean(dim=0)[:5])(points)
    points.requires_grad_()
    rows = model(points, *category).flatten(1).mean(dim=0)[:5]
    for jacobian, row in zip(found, rows, strict=True):
        (wanted,) = torch.autograd.grad(row, points, retain_graph=True)
        torch.testing.assert_close(jacobian, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


def test_second_derivatives_want_the_plain_backends():
    """The fast backends say so; with the plain ones of attention and MLP they fit finite differences."""
    torch.manual_seed(0)
    model = MODELS["classifier"]().eval()
    nn.init.normal_(model.head.weight)
    value, points = objective(model), (torch.rand(2, 48, 3) * 2 - 1).requires_grad_()

    def slope(points):
        return torch.autograd.grad(value(points), points, create_graph=True)[0]

    with pytest.raises(NotImplementedError, match=r"'cpu' has no second derivatives.*backend=\"reference\""):
        slope(points).square().sum().backward()
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"
    model.double()
    points = points.detach().double().requires_grad_()
    direction = torch.randn_like(points)
    (found,) = torch.autograd.grad((slope(points) * direction).sum(), points)
    moved = [slope((points + sign * STEP * direction).detach().requires_grad_()) for sign in (1, -1)]
    expected = (moved[0] - moved[1]) / (2 * STEP)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_points_of_another_precision_than_the_model(model, dtype):
    points, category = (torch.rand(2, 48, 3) * 2 - 1).to(dtype), category_of(model)
    with torch.no_grad():
        found, expected = model(points, *category), model(points.float(), *category)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
