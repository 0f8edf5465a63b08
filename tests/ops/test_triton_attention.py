"""The fused attention kernels at the edges of their tiles; the shared contract is tested with the op."""

import pytest
import torch
from cases import within_budget

from bixt3d.ops import available_backends, bidirectional_attention
from bixt3d.ops.backends import triton_attention, triton_runtime

OP = "bidirectional_attention"
NAMES = ("latent_ref", "latent_val", "token_ref", "token_val")
DEVICE = "cpu" if triton_runtime.interpreted() else "cuda"
MISSING = available_backends(OP)["triton"]
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []  # the interpreter runs them anywhere
needs_triton = pytest.mark.skipif(MISSING is not None, reason=f"triton {MISSING}")

# clouds, clouds of the latents, heads, latents M, tokens N, width; chunks and token ranges follow from them
SHAPES = {
    "one_latent_one_token": (2, 2, 1, 1, 1, 16),
    "one_latent": (1, 1, 2, 1, 70, 16),
    "one_token": (2, 1, 1, 5, 1, 16),
    "full_tiles": (1, 1, 1, 32, 128, 32),
    "one_over_the_tiles": (1, 1, 1, 33, 129, 32),
    "one_short_of_the_tiles": (2, 1, 1, 63, 127, 16),
    "shared_latents": (3, 1, 2, 17, 45, 24),
    "chunks_of_latents": (1, 1, 1, 256, 33, 32),
    "uneven_chunks": (2, 1, 1, 150, 40, 64),
    "widest_heads": (1, 1, 1, 40, 35, 128),
    "narrow_heads": (1, 1, 2, 9, 20, 3),
}


def inputs(shape, dtype, seed=0):
    clouds, latent_clouds, heads, num_latents, num_tokens, width = SHAPES[shape]
    generator = torch.Generator().manual_seed(seed)
    sizes = ((latent_clouds, num_latents),) * 2 + ((clouds, num_tokens),) * 2
    # Rounded to bfloat16 first, so that every precision starts from the same numbers.
    return [
        torch.randn(b, heads, rows, width, generator=generator).bfloat16().to(DEVICE, dtype)
        for b, rows in sizes
    ]


def outputs_and_gradients(args, backend):
    leaves = [x.clone().requires_grad_() for x in args]
    outputs = bidirectional_attention(*leaves, backend=backend)
    generator = torch.Generator().manual_seed(9)
    loss = torch.zeros((), dtype=torch.float64, device=DEVICE)
    for out in outputs:
        factor = torch.randn(out.shape, generator=generator).to(DEVICE)
        loss = loss + (out.double() * factor).sum()
    gradients = torch.autograd.grad(loss, leaves)
    return dict(zip(("latents", "tokens", *NAMES), (*outputs, *gradients), strict=True))


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_results_and_every_gradient_stay_in_the_budget(shape, dtype):
    args = inputs(shape, dtype)
    got = outputs_and_gradients(args, "triton")
    same_precision = outputs_and_gradients(args, "reference")
    exact = outputs_and_gradients([x.double() for x in args], "reference")
    for name, value in got.items():
        assert value.dtype == dtype, name
        assert value.shape == exact[name].shape, name
        if exact[name].any():
            within_budget(value, same_precision[name], exact[name])
        else:
            # One latent and one token: weights are one whatever the references. Terms of the size of the
            # gradients of the values cancel, and what is left is the rounding of those.
            assert value.abs().max() <= 64 * torch.finfo(dtype).eps * exact["token_val"].abs().max()


@needs_triton
def test_the_shapes_reach_every_way_of_cutting_the_work():
    plans = [triton_attention._Plan(*inputs(shape, torch.float32)) for shape in SHAPES]
    assert {plan.chunks > 1 for plan in plans} == {True, False}
    assert {plan.splits > 1 for plan in plans} == {True, False}
    for plan in plans:
        assert plan.chunks * plan.latents >= plan.num_latents > (plan.chunks - 1) * plan.latents
        assert plan.splits * plan.tokens_each >= plan.num_tokens > (plan.splits - 1) * plan.tokens_each


def test_any_number_of_clouds_and_heads_fits_into_the_grid():
    latents, tokens = (torch.empty(20_000, 4, rows, 16, device="meta") for rows in (5, 7))
    pairs, *others = triton_attention._Plan(latents, latents, tokens, tokens).grid
    assert pairs == 80_000
    assert max(others) <= 65_535  # what the second and third axis of a launch may have


@needs_triton
def test_repeated_runs_are_identical():
    args = inputs("one_over_the_tiles", torch.float32)
    first, second = (outputs_and_gradients(args, "triton") for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@needs_triton
def test_inputs_as_the_layers_make_them_need_no_copy():
    # One linear map yields references and values of all heads: strided views of (B, N, 2·H·D).
    def heads(rows, seed):
        generator = torch.Generator().manual_seed(seed)
        joint = torch.randn(2, rows, 2 * 2 * 16, generator=generator).to(DEVICE)
        return joint.unflatten(-1, (2, 2, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    args = (*heads(5, 0), *heads(37, 1))
    assert not any(x.is_contiguous() for x in args)
    assert all(triton_attention._rows_in_one_piece(x) is x for x in args)
    got = bidirectional_attention(*args, backend="triton")
    copies = bidirectional_attention(*(x.contiguous() for x in args), backend="triton")
    for out, expected in zip(got, copies, strict=True):
        assert torch.equal(out, expected)
        assert out.transpose(1, 2).is_contiguous()  # merging the heads is a view


@needs_triton
def test_large_similarities_stay_finite_and_right():
    # Similarities of some hundreds: their exponentials would leave float32 without the largest taken off.
    args = [x * 6 for x in inputs("one_over_the_tiles", torch.float32)]
    got = outputs_and_gradients(args, "triton")
    exact = outputs_and_gradients([x.double() for x in args], "reference")
    same_precision = outputs_and_gradients(args, "reference")
    for name, value in got.items():
        assert value.isfinite().all(), name
        within_budget(value, same_precision[name], exact[name])


@needs_triton
def test_nothing_of_the_size_of_the_maps_is_kept():
    leaves = [x.requires_grad_() for x in inputs("one_over_the_tiles", torch.float32)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        bidirectional_attention(*leaves, backend="triton")
    assert max(kept) == leaves[2].numel()


@needs_triton
def test_registration_is_sound():
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    op = torch.ops.bixt3d.triton_bidirectional_attention.default
    for shape in ("shared_latents", "uneven_chunks"):
        args = [x.requires_grad_() for x in inputs(shape, torch.float32)]
        torch.library.opcheck(op, (*args, 0.25), test_utils=tests)


@needs_triton
def test_compiles_into_one_graph_with_the_same_gradients():
    torch._dynamo.reset()

    def run(*args):
        return bidirectional_attention(*args, backend="triton")

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ("shared_latents", "one_short_of_the_tiles"):
        leaves = [x.requires_grad_() for x in inputs(shape, torch.float32)]
        both = []
        for function in (compiled, run):
            outputs = function(*leaves)
            loss = outputs[0].square().sum() + outputs[1].square().sum()
            both.append((*outputs, *torch.autograd.grad(loss, leaves)))
        for got, expected in zip(*both, strict=True):
            assert torch.equal(got, expected)


@needs_triton
def test_autocast_computes_in_its_dtype():
    args = inputs("shared_latents", torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        got = bidirectional_attention(*args, backend="triton")
    expected = bidirectional_attention(*(x.bfloat16() for x in args), backend="triton")
    for out, wanted in zip(got, expected, strict=True):
        assert torch.equal(out, wanted)


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({}, {"dropout_p": 0.1, "training": True}, "does not support dropout"),
        ({"latents": (1, 1, 257, 16)}, {}, "at most 256 latents, got 257"),
        ({"latents": (1, 1, 4, 160), "tokens": (1, 1, 4, 160)}, {}, "at most 128 channels, got 160"),
        ({"dtype": torch.float64}, {}, "not float64"),
    ],
)
def test_what_the_kernels_cannot_do_is_refused_with_the_reason(change, options, reason):
    sizes = {"latents": (1, 1, 4, 16), "tokens": (1, 1, 4, 16), "dtype": torch.float32} | change
    latents = torch.zeros(sizes["latents"], dtype=sizes["dtype"])
    tokens = torch.zeros(sizes["tokens"], dtype=sizes["dtype"])
    with pytest.raises(NotImplementedError, match=reason):
        bidirectional_attention(latents, latents, tokens, tokens, backend="triton", **options)


def test_on_the_cpu_it_is_never_chosen_by_itself(monkeypatch):
    latents, tokens = torch.zeros(1, 1, 4, 16), torch.zeros(1, 1, 8, 16)

    def refuse(*args):
        raise AssertionError("the interpreter was chosen without being named")

    monkeypatch.setattr(triton_attention, "_attend", refuse)
    bidirectional_attention(latents, latents, tokens, tokens)
