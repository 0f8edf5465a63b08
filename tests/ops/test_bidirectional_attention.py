import numpy as np
import pytest
import torch
from cases import every_backend, within_budget
from scipy.special import logsumexp, softmax
from torch.autograd import gradcheck, gradgradcheck

from bixt3d.ops import attention_weights, bidirectional_attention, join_latents, latent_attention

OP = "bidirectional_attention"
NAMES = ("latent_ref", "latent_val", "token_ref", "token_val")
# batch of the latents, width of latent values, width of token values; B=3, H=2, M=5, N=17, D=8
SHAPES = {"own_latents": (3, 8, 8), "shared_latents": (1, 8, 8), "other_widths": (3, 6, 10)}


def inputs(shape="own_latents", dtype=torch.float64, seed=0):
    batch, latent_width, token_width = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    return (
        normal(batch, 2, 5, 8),
        normal(batch, 2, 5, latent_width),
        normal(3, 2, 17, 8),
        normal(3, 2, 17, token_width),
    )


def by_numpy(latent_ref, latent_val, token_ref, token_val, scale=8**-0.5):
    latent_ref, latent_val, token_ref, token_val = (
        x.double().numpy() for x in (latent_ref, latent_val, token_ref, token_val)
    )
    similarity = scale * (latent_ref @ token_ref.swapaxes(-1, -2))
    latents = softmax(similarity, axis=-1) @ token_val
    tokens = softmax(similarity, axis=-2).swapaxes(-1, -2) @ latent_val
    return torch.from_numpy(latents), torch.from_numpy(tokens)


@every_backend(OP)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_error_stays_in_the_budget(backend, shape, dtype):
    args = inputs(shape, dtype)
    got = bidirectional_attention(*args, backend=backend)
    reference = bidirectional_attention(*args, backend="reference")
    for out, same_precision, exact in zip(got, reference, by_numpy(*args), strict=True):
        assert out.dtype == dtype
        assert out.shape == exact.shape
        within_budget(out, same_precision, exact)


@every_backend(OP)
def test_float64_is_the_formula(backend):
    for scale in (None, 0.3):
        got = bidirectional_attention(*inputs(), scale=scale, backend=backend)
        for out, exact in zip(got, by_numpy(*inputs(), scale=scale or 8**-0.5), strict=True):
            torch.testing.assert_close(out, exact, rtol=1e-12, atol=1e-12)


@every_backend(OP)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_stay_in_the_budget(backend, shape, name):
    gradients = []
    for chosen, dtype in (
        (backend, torch.float32),
        ("reference", torch.float32),
        ("reference", torch.float64),
    ):
        leaf = dict(zip(NAMES, inputs(shape, dtype), strict=True))
        leaf[name].requires_grad_()
        latents, tokens = bidirectional_attention(*leaf.values(), backend=chosen)
        (latents.square().sum() + tokens.pow(3).sum()).backward()
        gradients.append(leaf[name].grad)
    within_budget(*gradients)


@every_backend(OP)
@pytest.mark.parametrize("shape", ["shared_latents", "other_widths"])
def test_differentiates(backend, shape):
    args = [x[:, :1, :4, :3].clone().requires_grad_() for x in inputs(shape)]
    assert gradcheck(lambda *args: bidirectional_attention(*args, backend=backend), args)


def test_the_reference_differentiates_twice():
    args = [x[:2, :1, :4, :3].clone().requires_grad_() for x in inputs()]
    assert gradgradcheck(lambda *args: bidirectional_attention(*args, backend="reference"), args)


def test_nothing_of_the_size_of_the_maps_is_kept():
    latents, tokens = torch.randn(1, 2, 16, 8), torch.randn(2, 2, 256, 8)
    leaves = [x.clone().requires_grad_() for x in (latents, latents, tokens, tokens)]
    kept = {}
    for backend in ("sdpa", "reference"):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x
        ):
            bidirectional_attention(*leaves, backend=backend)
        kept[backend] = max(sizes)
    assert kept["sdpa"] <= tokens.numel()
    assert kept["reference"] >= 2 * 2 * 16 * 256


CUTS = (slice(0, 1), slice(1, 12), slice(12, 17))


def in_parts(args, backend, op=bidirectional_attention):
    """Attend to three parts of the tokens, one after the other, and join what the latents got."""
    latent_ref, latent_val, *tokens = args
    latents = (latent_ref, latent_val) if op is bidirectional_attention else (latent_ref,)
    found = [
        op(*latents, *(x[:, :, cut] for x in tokens), return_logsumexp=True, backend=backend) for cut in CUTS
    ]
    return join_latents([parts[0] for parts in found], [parts[-1] for parts in found]), found


@every_backend(OP)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1, 30])  # at 30 most weights of some part are nought
def test_parts_of_the_tokens_join_to_all_of_them(backend, shape, dtype, spread):
    latent_ref, latent_val, token_ref, token_val = inputs(shape, dtype)
    args = (latent_ref * spread, latent_val, token_ref, token_val)
    reference = bidirectional_attention(*args, backend="reference")
    exact = by_numpy(*args)
    latents, found = in_parts(args, backend)
    within_budget(latents, reference[0], exact[0])
    within_budget(torch.cat([parts[1] for parts in found], dim=2), reference[1], exact[1])


@every_backend("latent_attention")
def test_parts_join_in_the_one_sided_form(backend):
    args = inputs("other_widths", torch.float32)
    latents, _ = in_parts(args, backend, latent_attention)
    reference = latent_attention(args[0], *args[2:], backend="reference")
    within_budget(latents, reference, by_numpy(*args)[0])


@every_backend(OP)
def test_log_sums_are_those_of_the_similarities(backend):
    for spread in (1, 30):
        latent_ref, latent_val, token_ref, token_val = inputs(dtype=torch.float32)
        args = [x.requires_grad_() for x in (latent_ref * spread, latent_val, token_ref, token_val)]
        *_, got = bidirectional_attention(*args, return_logsumexp=True, backend=backend)
        similarity = 8**-0.5 * args[0].detach().double() @ token_ref.detach().double().mT
        exact = torch.from_numpy(logsumexp(similarity.numpy(), axis=-1))
        torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-5)
        assert not got.requires_grad


def test_parts_need_their_log_sums():
    for parts, sums in (([], []), ([torch.zeros(1, 1, 2, 3)], [])):
        with pytest.raises(ValueError, match="expected at least one, each with its logsumexp"):
            join_latents(parts, sums)


@every_backend(OP)
def test_shared_latents_equal_copies_of_them(backend):
    latent_ref, latent_val, token_ref, token_val = inputs("shared_latents")
    shared = bidirectional_attention(latent_ref, latent_val, token_ref, token_val, backend=backend)
    copies = (latent_ref.repeat(3, 1, 1, 1), latent_val.repeat(3, 1, 1, 1), token_ref, token_val)
    for got, expected in zip(shared, bidirectional_attention(*copies, backend=backend), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@every_backend(OP)
def test_large_similarities_stay_finite_in_float16(backend):
    latents, tokens = torch.full((1, 1, 2, 64), 40.0).half(), torch.full((1, 1, 3, 64), 40.0).half()
    for out in bidirectional_attention(latents, latents, tokens, tokens, backend=backend):
        assert torch.equal(out, torch.full_like(out, 40))


@every_backend(OP)
def test_dropout_applies_in_training_alone(backend):
    args = inputs()
    plain = bidirectional_attention(*args, backend=backend)
    evaluated = bidirectional_attention(*args, dropout_p=0.5, backend=backend)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = [
            bidirectional_attention(*args, dropout_p=0.5, training=True, backend=backend) for _ in range(400)
        ]
    for side in range(2):
        assert torch.equal(evaluated[side], plain[side])
        samples = torch.stack([outputs[side] for outputs in trained])
        assert not torch.equal(samples[0], samples[1])
        # Dropout keeps the mean: 400 samples agree with it within five standard errors.
        error = (samples.mean(0) - plain[side]).abs()
        assert (error <= 5 * samples.std(0) / 20).all()


@every_backend(OP)
def test_no_clouds_give_empty_results(backend):
    latents, tokens = torch.zeros(1, 2, 5, 8), torch.zeros(0, 2, 17, 8)
    got = bidirectional_attention(latents, latents, tokens, tokens, backend=backend)
    assert [out.shape for out in got] == [(0, 2, 5, 8), (0, 2, 17, 8)]


@every_backend(OP)
def test_autocast_brings_mixed_inputs_to_one_dtype(backend):
    args = list(inputs(dtype=torch.float32))
    args[1] = args[1].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = bidirectional_attention(*args, backend=backend)
    assert [out.dtype for out in got] == [torch.bfloat16] * 2
    for out, exact in zip(got, by_numpy(*args), strict=True):
        assert (out.double() - exact).abs().max() < 0.05


@pytest.mark.parametrize("shape", ["own_latents", "shared_latents"])
def test_the_maps_are_what_attention_multiplies_with(shape):
    latent_ref, latent_val, token_ref, token_val = inputs(shape)
    latents_from_tokens, tokens_from_latents = attention_weights(latent_ref, token_ref)
    assert latents_from_tokens.shape == (3, 2, 5, 17)
    assert tokens_from_latents.shape == (3, 2, 17, 5)
    exact = by_numpy(latent_ref, latent_val, token_ref, token_val)
    torch.testing.assert_close(latents_from_tokens @ token_val, exact[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(tokens_from_latents @ latent_val, exact[1], rtol=1e-12, atol=1e-12)


def test_the_maps_are_float32_for_half_inputs_and_their_rows_add_up_to_one():
    latent_ref, _, token_ref, _ = inputs(dtype=torch.bfloat16)
    for weights in attention_weights(latent_ref, token_ref):
        assert weights.dtype == torch.float32
        np.testing.assert_allclose(weights.sum(-1).numpy(), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"latent_ref": torch.zeros(3, 5, 8)},
            ValueError,
            r"latent_ref has shape \(3, 5, 8\), expected \(B, H, M",
        ),
        (
            {"token_ref": torch.zeros(3, 2, 0, 8)},
            ValueError,
            r"token_ref has shape \(3, 2, 0, 8\), expected at",
        ),
        (
            {"latent_ref": torch.zeros(2, 2, 5, 8)},
            ValueError,
            r"expected \(B or 1, H, M, D\) and \(B, H, N, D\)",
        ),
        ({"token_ref": torch.zeros(3, 2, 17, 4)}, ValueError, r"token_ref has shape \(3, 2, 17, 4\)"),
        ({"token_ref": torch.zeros(3, 1, 17, 8)}, ValueError, r"token_ref has shape \(3, 1, 17, 8\)"),
        ({"latent_ref": torch.zeros(3, 2, 5, 0)}, ValueError, "at least one element and one channel"),
        ({"latent_ref": torch.zeros(3, 2, 5, 8, device="meta")}, ValueError, "latent_ref is on meta"),
        ({"token_val": torch.zeros(3, 2, 17, 8, device="meta")}, ValueError, "token_val is on meta"),
        ({"token_val": torch.zeros(3, 2, 17, 0)}, ValueError, r"token_val has shape \(3, 2, 17, 0\)"),
        (
            {"latent_val": torch.zeros(1, 2, 5, 8)},
            ValueError,
            r"latent_val has shape \(1, 2, 5, 8\), expected",
        ),
        (
            {"token_val": torch.zeros(3, 2, 16, 8)},
            ValueError,
            r"token_val has shape \(3, 2, 16, 8\), expected",
        ),
        (
            {"token_val": torch.zeros(3, 2, 17, 8).half()},
            TypeError,
            "token_val has dtype float16, expected float32",
        ),
        (
            {"latent_ref": torch.zeros(3, 2, 5, 8).double()},
            TypeError,
            "latent_ref has dtype float64, expected",
        ),
        ({"latent_val": torch.zeros(3, 2, 5, 8).long()}, TypeError, "latent_val has dtype int64, expected"),
        ({"dropout_p": 1.0}, ValueError, "dropout_p is 1.0, expected a probability"),
        ({"dropout_p": True}, TypeError, "dropout_p has type bool, expected a float"),
        ({"dropout_p": None}, TypeError, "dropout_p has type NoneType, expected a float"),
        ({"backend": "flash"}, ValueError, "'flash'; choose one of: cpu, reference, sdpa"),
    ],
)
def test_bad_input_is_named(change, error, message):
    arguments = dict(zip(NAMES, inputs(dtype=torch.float32), strict=True)) | change
    with pytest.raises(error, match=message):
        bidirectional_attention(**arguments)
