"""What the compiled backend of attention does beyond the shared cases: sizes, ranges of numbers, threads, levels."""

import pytest
import torch
from cases import within_budget
from torch.utils.checkpoint import checkpoint

from bixt3d.ops import available_backends, bidirectional_attention, latent_attention

NAMES = ("latent_ref", "latent_val", "token_ref", "token_val")
RESULTS = ("latents", "tokens", *(f"gradient of {name}" for name in NAMES))
# clouds, heads, latents, tokens, widths of references, latent values, token values
SIZES = {
    "model": (2, 3, 64, 200, 32, 32, 32),
    "several_ranges": (1, 1, 8, 4500, 16, 16, 16),
    "next_to_nothing": (1, 1, 2, 3, 1, 1, 1),
    "nothing_a_multiple": (2, 2, 37, 131, 20, 5, 40),
    "many_latents": (1, 2, 256, 70, 16, 16, 16),
    "wide_heads": (1, 1, 16, 65, 128, 128, 128),
    "fewer_tokens_than_latents": (3, 2, 48, 3, 24, 24, 24),
}
every_size = pytest.mark.parametrize("size", SIZES)


def inputs(size="model", *, dtype=torch.float32, shared=False, spread=1.0, seed=0):
    """Inputs as a linear map leaves them: heads beside each other, references and values in one piece of memory."""
    clouds, heads, num_latents, num_tokens, ref, latent, token = SIZES[size]
    generator = torch.Generator().manual_seed(seed)

    def normal(batch, rows, *widths):
        both = torch.randn(batch, rows, heads, sum(widths), generator=generator)
        parts = (both * spread).to(dtype).transpose(1, 2).split(widths, dim=-1)
        return [part.detach().requires_grad_() for part in parts]

    return [
        *normal(1 if shared else clouds, num_latents, ref, latent),
        *normal(clouds, num_tokens, ref, token),
    ]


def results(args, backend, dtype=None):
    """Outputs and the gradient of a weighted sum of them with respect to each input, by name."""
    args = [x.detach().to(dtype or x.dtype).requires_grad_() for x in args]
    out = bidirectional_attention(*args, backend=backend)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator).to(x.dtype) for x in out]
    return dict(zip(RESULTS, (*out, *torch.autograd.grad(out, args, weights)), strict=True))


def hold_to_budget(args):
    got, same, exact = (
        results(args, "cpu"),
        results(args, "reference"),
        results(args, "reference", torch.float64),
    )
    for name in RESULTS:
        within_budget(got[name], same[name], exact[name])


@every_size
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_and_gradients_stay_in_the_budget(level, size, dtype):
    hold_to_budget(inputs(size, dtype=dtype))


@every_size
def test_gradients_of_shared_latents_are_those_of_all_clouds(level, size):
    hold_to_budget(inputs(size, shared=True))


@pytest.mark.parametrize("spread", [1e-3, 3.0, 4.0])
@pytest.mark.parametrize("size", ["model", "several_ranges"])
def test_similarities_near_and_far_from_each_other(level, size, spread):
    hold_to_budget(inputs(size, spread=spread))


def with_an_ignored_latent(shift):
    """Latent 3 is far from all tokens: its similarities lie ``shift`` below those of the others."""
    args = [x.detach() for x in inputs("model")]
    args[0][..., 3, :], args[0][..., 3, 0] = 0, -shift
    args[2][..., 0] = 32**0.5  # makes the scaled similarity of latent 3 -shift, and moves the others alike
    return args


@pytest.mark.parametrize("shift", [30, 70, 200, 1000])
def test_a_latent_far_from_all_tokens_is_as_exact_as_the_others(level, shift):
    args = with_an_ignored_latent(shift)
    hold_to_budget(args)
    got = bidirectional_attention(*args, backend="cpu")[0]
    uniform = args[3].mean(dim=2)  # for this latent all tokens are alike
    torch.testing.assert_close(got[..., 3, :], uniform, rtol=1e-5, atol=1e-6)


def test_any_strides_serve(library):
    args = inputs("nothing_a_multiple")
    plain = [x.detach().clone(memory_format=torch.contiguous_format) for x in args]
    reversed_width = [x.detach().clone().transpose(-1, -2).contiguous().transpose(-1, -2) for x in args]
    expected = results(plain, "cpu")
    for variant in (args, reversed_width):
        for name, value in results(variant, "cpu").items():
            assert torch.equal(value, expected[name]), name


def test_threads_and_repetition_change_no_bit(library, threads):
    # heads together or apart, depending on the number of threads
    for size in ("model", "several_ranges"):
        args = inputs(size, shared=True)
        threads(1)
        expected = results(args, "cpu")
        for count in (1, 2, 3, 7):
            threads(count)
            for name, value in results(args, "cpu").items():
                assert torch.equal(value, expected[name]), (name, count)


def test_numbers_that_are_none_stay_in_their_cloud(level):
    args = [x.detach().clone() for x in inputs("model")]
    args[2][1, :, 5, 0] = float("nan")
    latents, tokens = bidirectional_attention(*args, backend="cpu")
    assert latents[1].isnan().all()
    assert tokens[1, :, 5].isnan().all()
    assert latents[0].isfinite().all()
    assert tokens[0].isfinite().all()
    assert tokens[1, :, :5].isfinite().all()


def test_no_clouds_have_gradients(library):
    latents = torch.randn(1, 2, 5, 8, requires_grad=True)
    tokens = torch.randn(0, 2, 17, 8, requires_grad=True)
    out = bidirectional_attention(latents, latents, tokens, tokens, backend="cpu")
    (out[0].sum() + out[1].sum()).backward()
    assert torch.equal(latents.grad, torch.zeros_like(latents))


def test_memory_grows_with_the_tokens_and_not_with_their_product_with_the_latents(library):
    args = inputs("many_latents")
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        bidirectional_attention(*args, backend="cpu")
    assert max(sizes) <= max(x.numel() for x in args)


def test_checkpointing_repeats_the_same_numbers(library):
    args = inputs("model")
    expected = torch.autograd.grad(sum(x.sum() for x in bidirectional_attention(*args, backend="cpu")), args)
    out = checkpoint(bidirectional_attention, *args, backend="cpu", use_reentrant=False)
    for got, want in zip(torch.autograd.grad(sum(x.sum() for x in out), args), expected, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("shared", [False, True])
def test_registration_is_sound(library, shared):
    args = [x.detach().clone().requires_grad_() for x in inputs("nothing_a_multiple", shared=shared)]
    torch.library.opcheck(torch.ops.bixt3d.cpu_bidirectional_attention.default, (*args, 0.2))


def test_one_compiled_graph_serves_every_number_of_tokens(library):
    torch._dynamo.reset()
    compiled = torch.compile(bidirectional_attention, fullgraph=True, dynamic=True, backend="aot_eager")
    for tokens in (40, 64, 131):
        args = [*inputs("model")[:2], *(x[:, :, :tokens] for x in inputs("model")[2:])]
        with torch.compiler.set_stance("default" if tokens == 40 else "fail_on_recompile"):
            got = compiled(*args)
        for out, expected in zip(got, bidirectional_attention(*args), strict=True):
            assert torch.equal(out, expected)


@pytest.mark.parametrize("backend", ["cpu", "sdpa", "reference"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("size", ["model", "several_ranges", "nothing_a_multiple"])
def test_the_one_sided_form_is_half_of_the_whole(library, backend, size, shared):
    latent_ref, latent_val, token_ref, token_val = inputs(size, shared=shared)
    args = [latent_ref, token_ref, token_val]
    got = latent_attention(*args, backend=backend)
    expected = bidirectional_attention(latent_ref, latent_val, token_ref, token_val, backend="reference")[0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad(out, args, weights) for out in (got, expected)]
    for name, one, two in zip(("latent_ref", "token_ref", "token_val"), *gradients, strict=True):
        torch.testing.assert_close(
            one, two, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_says_what_it_cannot_do(library):
    half = torch.zeros(1, 1, 2, 4).half()
    assert available_backends("bidirectional_attention", half, half, half, half)["cpu"] == (
        "takes bfloat16 and float32, not float16"
    )
    args = [x.detach() for x in inputs("next_to_nothing")]
    with pytest.raises(NotImplementedError, match="backend 'cpu' does not support dropout"):
        bidirectional_attention(*args, dropout_p=0.1, training=True, backend="cpu")
    many = torch.zeros(1, 1, 257, 4)
    assert "at most 256 latents" in available_backends("latent_attention", many, many, many)["cpu"]
    with torch.autocast("cpu", torch.float16):
        assert "not float16" in available_backends("bidirectional_attention", many, many, many, many)["cpu"]


def test_no_heads_give_nothing(level):
    latents, tokens = torch.zeros(2, 0, 3, 4), torch.zeros(2, 0, 5, 4)
    given = bidirectional_attention(latents, latents, tokens, tokens, backend="cpu")
    assert [tuple(x.shape) for x in given] == [(2, 0, 3, 4), (2, 0, 5, 4)]


@pytest.mark.parametrize("bits", [-1, 0x7FC00001, 0x7FFFFFFF, -4194303])
def test_every_nan_stays_one(level, bits):
    """Of a NaN's bits many may be anything, and no sum with them may end as a number."""
    args = [x.detach().clone() for x in inputs("nothing_a_multiple")]
    args[2][0, 1, 7] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    latents, tokens = bidirectional_attention(*args, backend="cpu")
    assert tokens[0, 1, 7].isnan().all()
    assert latents[0, 1].isnan().all()
    assert latents.isnan().sum() == latents[0, 1].numel()
    assert tokens.isnan().sum() == tokens[0, 1, 7].numel()


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_of_latents_whose_rows_overlap_in_memory(which):
    """Windows of one row: no memory with their strides holds a gradient for each."""
    args = inputs()
    rows = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(5))
    args[0], args[1] = args[0][:, :, :3, :6], args[1][:, :, :3, :6]
    args[2] = args[2][..., :6]
    args[which] = rows.unfold(2, 6, 1)
    assert args[which].shape == (2, 3, 3, 6)
    got = [args[i].detach().requires_grad_() for i in range(4)]
    expected = [x.detach().clone(memory_format=torch.contiguous_format).requires_grad_() for x in got]
    for leaves in (got, expected):
        sum(x.square().sum() for x in bidirectional_attention(*leaves, backend="cpu")).backward()
    for name, x, y in zip(NAMES, got, expected, strict=True):
        assert torch.equal(x.grad, y.grad), name
