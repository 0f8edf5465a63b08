import pytest
import torch
from cases import every_backend, within_budget

from bixt3d.layers import BidirectionalCrossAttention
from bixt3d.ops import bidirectional_attention, join_latents, stream_attention

OP = "stream_attention"
NAMES = ("latents", "update", "log-sums")
# clouds, tokens, channels, heads, width, latents, whether clouds share the latents, spread of the references
SIZES = {
    "model": (2, 130, 192, 6, 32, 64, False, 1.0),
    "several_ranges": (1, 1300, 64, 2, 16, 7, True, 1.0),
    "one_of_everything": (3, 1, 16, 1, 16, 1, True, 1.0),
    "large_similarities": (2, 600, 96, 3, 32, 17, False, 10.0),
    "no_clouds": (0, 5, 32, 2, 16, 3, True, 1.0),
}
every_size = pytest.mark.parametrize("size", SIZES)
both_forms = pytest.mark.parametrize("one_sided", [False, True], ids=["both", "one_sided"])


def inputs(size="model", one_sided=False):
    clouds, tokens, channels, heads, width, latents, shared, spread = SIZES[size]
    generator = torch.Generator().manual_seed(0)

    def normal(*shape, spread=1.0):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * spread).float()

    wide, entries = heads * width, 1 if shared else clouds
    return [
        normal(entries, heads, latents, width, spread=spread),
        None if one_sided else normal(entries, heads, latents, width),
        normal(clouds, tokens, channels, spread=3.0),
        1 + normal(channels, spread=0.2),
        normal(channels, spread=0.2),
        normal(2 * wide, channels, spread=channels**-0.5),
        normal(2 * wide),
        None if one_sided else normal(channels, wide, spread=wide**-0.5),
        None if one_sided else normal(channels),
    ]


def exact(args, eps=1e-6):
    """Softmax by softmax in float64, without any function of the toolkit."""
    latent_ref, latent_val, tokens, norm_weight, norm_bias, weight, bias, out_weight, out_bias = (
        None if x is None else x.double() for x in args
    )
    heads = latent_ref.shape[1]
    centred = tokens - tokens.mean(-1, keepdim=True)
    normal = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * norm_weight + norm_bias
    sides = normal @ weight.T + bias
    ref, val = (side.unflatten(-1, (heads, -1)).transpose(1, 2) for side in sides.chunk(2, dim=-1))
    similarity = latent_ref @ ref.mT / latent_ref.shape[-1] ** 0.5
    latents = similarity.softmax(-1) @ val
    update = None
    if latent_val is not None:
        update = (similarity.softmax(-2).mT @ latent_val).transpose(1, 2).flatten(2) @ out_weight.T + out_bias
    return latents, update, similarity.logsumexp(-1)


def check(args, backend):
    with torch.no_grad():
        got, same_precision = (stream_attention(*args, backend=name) for name in (backend, "reference"))
    for name, *values in zip(NAMES, got, same_precision, exact(args), strict=True):
        if values[2] is None:
            assert values[0] is None
            continue
        assert values[0].shape == values[2].shape, name
        if values[0].numel():
            within_budget(*values)


@every_backend(OP)
@every_size
@both_forms
def test_error_stays_in_the_budget(backend, size, one_sided):
    check(inputs(size, one_sided), backend)


@every_size
@both_forms
def test_every_instruction_set_stays_in_the_budget(level, size, one_sided):
    check(inputs(size, one_sided), "cpu")


@every_backend(OP)
def test_latents_that_nearly_no_token_looks_like(backend):
    """Similarities so far apart that one exponential cannot serve both directions: such heads are computed again."""
    args = inputs()
    args[0][:, 2, 5] *= 400
    args[0][:, 4] *= 100
    check(args, backend)


def test_it_is_the_attention_of_its_parts(library):
    args = inputs()
    with torch.no_grad():
        latents, update, logsumexp = stream_attention(*args, backend="cpu")
        normal = torch.nn.functional.layer_norm(args[2], (192,), args[3], args[4], 1e-6)
        sides = torch.nn.functional.linear(normal, args[5], args[6]).unflatten(-1, (2, 6, 32))
        parts = bidirectional_attention(
            *args[:2], *sides.permute(2, 0, 3, 1, 4).unbind(0), return_logsumexp=True, backend="cpu"
        )
    torch.testing.assert_close(latents, parts[0], atol=1e-5, rtol=1e-5)
    expected = torch.nn.functional.linear(parts[1].transpose(1, 2).flatten(2), *args[7:])
    torch.testing.assert_close(update, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logsumexp, parts[2], atol=1e-5, rtol=1e-5)


@every_backend(OP)
def test_parts_of_the_stream_join_to_the_whole(backend):
    args = inputs("several_ranges")
    with torch.no_grad():
        latents, update, _ = stream_attention(*args, backend=backend)
        parts = [
            stream_attention(*args[:2], part, *args[3:], backend=backend)
            for part in args[2].split(500, dim=1)
        ]
    joined = join_latents([p[0] for p in parts], [p[2] for p in parts])
    torch.testing.assert_close(joined, latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat([p[1] for p in parts], dim=1), update, atol=1e-5, rtol=1e-5)


def test_neither_threads_nor_strides_change_a_bit(library, threads):
    args = inputs("several_ranges")
    with torch.no_grad():
        threads(1)
        one = stream_attention(*args, backend="cpu")
        strided = [x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.ndim > 1 else x for x in args]
        for count in (2, 5):
            threads(count)
            for given in (args, strided):
                for got, expected in zip(stream_attention(*given, backend="cpu"), one, strict=True):
                    assert torch.equal(got, expected)


def test_nothing_beside_the_update_is_written(library):
    args = inputs()
    before = [x.clone() for x in args]
    with torch.no_grad():
        stream_attention(*args, backend="cpu")
    assert all(torch.equal(x, y) for x, y in zip(args, before, strict=True))


def test_the_library_says_what_it_leaves_to_others(library):
    args = inputs()
    with torch.no_grad():
        for change, message in (
            (lambda a: [x.double() for x in a], "takes only float32"),
            (lambda a: [a[0].repeat(1, 1, 5, 1), a[1].repeat(1, 1, 5, 1), *a[2:]], "takes at most 256 latents"),
            (lambda a: [a[0][:, :, :, :20], a[1][:, :, :, :20], *a[2:5], a[5][:240], a[6][:240], a[7][:, :120], a[8]],
             "multiple of 16"),
        ):  # fmt: skip
            with pytest.raises(NotImplementedError, match=message):
                stream_attention(*change(args), backend="cpu")
        with (
            torch.autocast("cpu", torch.bfloat16),
            pytest.raises(NotImplementedError, match="without autocast"),
        ):
            stream_attention(*args, backend="cpu")
    args[5].requires_grad_()
    with pytest.raises(NotImplementedError, match="computes no gradient"):
        stream_attention(*args, backend="cpu")
    latents, update, _ = stream_attention(*args)
    (latents.sum() + update.sum()).backward()
    assert args[5].grad is not None


@both_forms
def test_registration_is_sound(library, one_sided):
    op = torch.ops.bixt3d.cpu_stream_attention.default
    torch.library.opcheck(op, (*inputs("several_ranges", one_sided), 0.25, 1e-6))


@pytest.mark.parametrize("backend", [None, "sdpa", "reference"])
def test_gradients_that_lie_beside_each_other_are_those_of_copies(backend):
    """The sides of the tokens are cut without copying back their gradients; "reference" copies."""
    torch.manual_seed(0)
    module = BidirectionalCrossAttention(32, 48, num_heads=2, backend=backend)
    latents, tokens = torch.randn(1, 5, 32), torch.randn(3, 9, 48, requires_grad=True)
    weights = torch.randn(3, 5, 32), torch.randn(3, 9, 48)
    results = {}
    for name in (backend, "reference"):
        module.backend = name
        module.zero_grad()
        out = module(latents, tokens)
        loss = sum((x * w).sum() for x, w in zip(out[:2], weights, strict=True))
        (grad,) = torch.autograd.grad(loss, tokens, retain_graph=True)
        loss.backward()
        results[name] = [grad, *(p.grad.clone() for p in module.parameters())]
    for got, expected in zip(results[backend], results["reference"], strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
