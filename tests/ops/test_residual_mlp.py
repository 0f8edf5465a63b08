import pytest
import torch
from cases import every_backend, within_budget
from scipy.special import ndtr

from bixt3d.layers.residual import ResidualMLP
from bixt3d.ops import residual_mlp

OP = "residual_mlp"
# leading sizes, channels, hidden channels
SIZES = {
    "model": ((2, 100), 192, 768),
    "one_number": ((1,), 1, 1),
    "no_leading_axis": ((), 24, 5),
    "nothing_a_multiple": ((3, 43), 45, 131),
    "one_more_than_a_tile": ((65,), 64, 96),
    "no_rows": ((2, 0), 16, 32),
    "narrow_hidden": ((70,), 100, 3),
}
every_size = pytest.mark.parametrize("size", SIZES)


def inputs(size="model", dtype=torch.float32, seed=0):
    leading, channels, hidden = SIZES[size]
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, spread=1.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * spread).to(dtype)

    return [
        normal(*leading, channels, spread=3.0),
        1 + normal(channels, spread=0.2),
        normal(channels, spread=0.2),
        normal(hidden, channels, spread=channels**-0.5),
        normal(hidden, spread=0.5),
        normal(channels, hidden, spread=hidden**-0.5),
        normal(channels, spread=0.5),
    ]


def by_numpy(x, norm_weight, norm_bias, weight1, bias1, weight2, bias2, eps=1e-6):
    x, norm_weight, norm_bias, weight1, bias1, weight2, bias2 = (
        value.double().numpy() for value in (x, norm_weight, norm_bias, weight1, bias1, weight2, bias2)
    )
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / ((centred**2).mean(-1, keepdims=True) + eps) ** 0.5 * norm_weight + norm_bias
    hidden = normal @ weight1.T + bias1
    return torch.as_tensor(x + (hidden * ndtr(hidden)) @ weight2.T + bias2)


@every_backend(OP)
@every_size
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_error_stays_in_the_budget(backend, size, dtype):
    args = inputs(size, dtype)
    got, same_precision = residual_mlp(*args, backend=backend), residual_mlp(*args, backend="reference")
    assert got.shape == args[0].shape
    assert got.dtype == dtype
    if got.numel():
        within_budget(got, same_precision, by_numpy(*args))


@every_size
def test_every_instruction_set_stays_in_the_budget(level, size):
    args = inputs(size)
    if args[0].numel():
        got, same_precision = residual_mlp(*args, backend="cpu"), residual_mlp(*args, backend="reference")
        within_budget(got, same_precision, by_numpy(*args))


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-3])
def test_rows_that_hardly_vary_stay_in_the_budget(level, spread):
    """What rounding leaves of the mean is multiplied by up to a thousand here."""
    args = inputs()
    args[0] = args[0][..., :1] + spread * args[0]
    got, same_precision = residual_mlp(*args, backend="cpu"), residual_mlp(*args, backend="reference")
    within_budget(got, same_precision, by_numpy(*args))


@every_backend(OP)
def test_the_activation_is_right_from_end_to_end(backend):
    """Rows (a, -a) have mean 0 and deviation a, which as the weight of the norm gives them back: h = (a, -a)."""
    eye, zero = torch.eye(2), torch.zeros(2)
    for a in (*torch.linspace(1e-3, 7, 1500), *torch.linspace(7, 200, 101)):
        row = torch.stack([a, -a])
        got = residual_mlp(row, a.expand(2), zero, eye, zero, eye, zero, eps=0.0, backend=backend)
        expected = row.double() * (1 + torch.as_tensor(ndtr(row.double().numpy())))
        torch.testing.assert_close(got.double(), expected, rtol=3e-7, atol=1e-7)


@every_backend(OP)
def test_a_row_knows_nothing_of_the_others(backend):
    args = inputs()
    rows = args[0].flatten(0, 1)
    whole = residual_mlp(rows, *args[1:], backend=backend)
    broken = rows.clone()
    broken[70, 3] = float("nan")
    got = residual_mlp(broken, *args[1:], backend=backend)
    assert got[70].isnan().all()
    others = torch.arange(200) != 70
    assert torch.equal(got[others], whole[others])


def test_neither_threads_nor_strides_change_a_bit(library, threads):
    args = inputs()
    threads(1)
    one = residual_mlp(*args, backend="cpu")
    for count in (2, 5):
        threads(count)
        assert torch.equal(residual_mlp(*args, backend="cpu"), one)
    strided = [args[0].transpose(0, 1).contiguous().transpose(0, 1), *(x.flip(0).flip(0) for x in args[1:])]
    strided[3] = args[3].T.contiguous().T
    assert torch.equal(residual_mlp(*strided, backend="cpu"), one)


NAMES = ("x", "norm_weight", "norm_bias", "weight1", "bias1", "weight2", "bias2", "update")


def gradients(args, scale, backend, dtype):
    """Of seven inputs, or of these and an update."""
    args = [x.to(dtype, copy=True).requires_grad_() for x in args]
    options = {
        "update": args[7] if len(args) > 7 else None,
        "scale": None if scale is None else scale.to(dtype),
    }
    out = residual_mlp(*args[:7], **options, backend=backend)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (out * weights.to(dtype)).sum().backward()
    return [x.grad for x in args]


def scales(args):
    """None, and where there is an axis for it a scale that drops every second sample."""
    return [None, torch.arange(len(args[0])) % 2 * 1.25] if args[0].ndim > 1 else [None]


def check_gradients(size):
    args = inputs(size)
    args.append(inputs(size, seed=1)[0])
    for scale in scales(args):
        got = gradients(args, scale, "cpu", torch.float32)
        same_precision = gradients(args, scale, "reference", torch.float32)
        exact = gradients(args, scale, "reference", torch.float64)
        for name, *values in zip(NAMES, got, same_precision, exact, strict=True):
            if values[0].numel():
                try:
                    within_budget(*values)
                except AssertionError as error:
                    raise AssertionError(f"{name}, scale {scale}: {error}") from None


@every_size
def test_every_gradient_stays_in_the_budget(library, size):
    check_gradients(size)


@every_size
def test_every_gradient_stays_in_the_budget_on_every_instruction_set(level, size):
    check_gradients(size)


def test_the_reference_has_the_gradients_of_finite_differences():
    args = [x.double().requires_grad_() for x in inputs("narrow_hidden")]
    args[0] = args[0][:4].detach().requires_grad_()
    scale = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *values: residual_mlp(*values, scale=scale, backend="reference"), args, fast_mode=True
    )


@every_backend(OP)
def test_the_scale_multiplies_the_branch_of_its_sample(backend):
    args = inputs()
    plain = residual_mlp(*args, backend=backend)
    got = residual_mlp(*args, scale=torch.tensor([0.0, 1.5]), backend=backend)
    assert torch.equal(got[0], args[0][0])
    torch.testing.assert_close(got[1] - args[0][1], 1.5 * (plain - args[0])[1], rtol=1e-5, atol=1e-5)


@every_backend(OP)
@pytest.mark.parametrize("scale", [None, torch.tensor([0.0, 1.5])])
def test_the_update_is_added_first(backend, scale):
    args, update = inputs(), inputs(seed=1)[0]
    got = residual_mlp(*args, update=update, scale=scale, backend=backend)
    assert torch.equal(got, residual_mlp(args[0] + update, *args[1:], scale=scale, backend=backend))


@every_backend(OP)
@pytest.mark.parametrize("scale", [None, torch.tensor([0.0, 1.5])])
def test_the_result_goes_where_it_is_asked_to_and_there_alone(backend, scale):
    """To memory of its own, and over x itself, with rows on both sides that belong to others."""
    args, options = inputs(), {"update": inputs(seed=1)[0], "scale": scale, "backend": backend}
    expected = residual_mlp(*args, **options)
    out = torch.empty_like(expected)
    assert residual_mlp(*args, **options, out=out) is out
    assert torch.equal(out, expected)
    whole = torch.full((4, 100, 192), 7.0)
    whole[1:3] = args[0]
    rows = whole[1:3]
    residual_mlp(rows, *args[1:], **options, out=rows)
    assert torch.equal(rows, expected)
    assert (whole[0] == 7).all()
    assert (whole[3] == 7).all()


def test_a_dropped_sample_adds_nothing_to_any_gradient(library):
    args, scale = inputs(), torch.tensor([0.0, 2.0])
    both = gradients(args, scale, "cpu", torch.float32)
    other = [args[0].clone(), *args[1:]]
    other[0][0] = inputs(seed=1)[0][0]
    for got, expected in zip(gradients(other, scale, "cpu", torch.float32), both, strict=True):
        torch.testing.assert_close(got, expected)


def test_neither_repetition_nor_strides_change_a_bit_of_a_gradient(library, threads):
    args = inputs()
    for count in (1, 2, 5):
        threads(count)
        once = gradients(args, None, "cpu", torch.float32)
        strided = [args[0].transpose(0, 1).contiguous().transpose(0, 1), *args[1:]]
        strided[3] = args[3].T.contiguous().T
        for other in (args, strided):
            for got, expected in zip(gradients(other, None, "cpu", torch.float32), once, strict=True):
                assert torch.equal(got, expected)


def test_a_second_gradient_is_refused_by_name(library):
    args = inputs("narrow_hidden")
    args[0].requires_grad_()
    (grad,) = torch.autograd.grad(residual_mlp(*args, backend="cpu").sum(), args[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="residual_mlp: backend 'cpu' has no second derivatives"):
        grad.sum().backward()


def test_the_library_leaves_half_precision_to_torch(library):
    args = inputs()
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(NotImplementedError, match="takes float32, not bfloat16"),
    ):
        residual_mlp(*args, backend="cpu")


@pytest.mark.parametrize("scale", [None, torch.tensor([1.0, 0.0, 0.5])])
def test_registration_is_sound(library, scale):
    args = [x.requires_grad_() for x in inputs("nothing_a_multiple")]
    update = inputs("nothing_a_multiple", seed=1)[0].requires_grad_()
    plain = [x.detach() for x in (*args, update)]
    ops = torch.ops.bixt3d
    torch.library.opcheck(ops.cpu_residual_mlp.default, (*args, update, scale, 1e-5))
    torch.library.opcheck(
        ops.cpu_residual_mlp_backward.default, (torch.ones_like(update), *plain, scale, 1e-5)
    )
    torch.library.opcheck(ops.cpu_residual_mlp_out.default, (*plain, scale, 1e-5, torch.empty_like(update)))


def layer(**options):
    torch.manual_seed(0)
    return ResidualMLP(24, drop_path=0.5, **options).eval()


@pytest.mark.parametrize("training", [False, True])
def test_the_layer_computes_the_same_with_every_backend(library, training):
    x = torch.randn(64, 9, 24)
    results = []
    for backend in ("cpu", "reference", "modules"):
        module = layer().train(training)
        module.backend = None if backend == "modules" else backend
        if backend == "modules":
            module.mlp.register_forward_hook(lambda *args: None)
        given = x.clone().requires_grad_()
        torch.manual_seed(3)  # of stochastic depth
        out = module(given)
        out.square().sum().backward()
        results.append([out.detach(), given.grad, *(p.grad for p in module.parameters())])
    for others in results[1:]:
        for got, expected in zip(others, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    kept = (results[0][0] != x).flatten(1).any(dim=1)
    assert kept.all() if not training else 16 < kept.sum() < 48  # rate 0.5


def test_the_layer_computes_the_same_with_and_without_gradient(library):
    x = torch.randn(2, 9, 24)
    for options in ({}, {"layer_scale": 0.3}):
        with torch.no_grad():
            got = layer(**options)(x)
        torch.testing.assert_close(got, layer(**options)(x), rtol=1e-6, atol=1e-6)


def test_hooks_and_replaced_maps_of_the_layer_are_respected(library):
    x, seen = torch.randn(2, 9, 24), []
    hooked = layer()
    hooked.mlp.act.register_forward_hook(lambda module, args, out: seen.append(out))
    doubled = layer()
    doubled.mlp.fc2 = torch.nn.Sequential(doubled.mlp.fc2, torch.nn.Threshold(-1e9, 0))
    with torch.no_grad():
        plain = layer()(x)
        torch.testing.assert_close(hooked(x), plain)
        torch.testing.assert_close(doubled(x), plain)
    assert seen[0].shape == (2, 9, 96)
