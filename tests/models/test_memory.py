"""Activation checkpointing and chunks: the same numbers with less memory."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from places import PATIENCE, ROOT

from bixt3d.layers import GroupRefinement, PointTokenizer, bidirectional_cross, cross, sequential_cross
from bixt3d.layers.chunks import attend_in_chunks, in_chunks
from bixt3d.models import BiXTClassifier, BiXTEncoder, BiXTSegmenter

REFINEMENT = partial(GroupRefinement, num_neighbors=4, width=8)
VARIANTS = {
    "naive": {},
    "grouping": {"refinement": REFINEMENT},
    "hierarchy": {"refinement": partial(REFINEMENT, reduction=2)},
    "sequential": {"cross": sequential_cross},
    "dropout": {"dropout": 0.2, "layer_scale": 0.5},
}
variants = pytest.mark.parametrize("name", VARIANTS)


def classifier(name, **options):
    torch.manual_seed(0)
    settings = {"depth": 3, "dim": 24, "num_latents": 5, "num_heads": 3, "drop_path": 0.3}
    encoder = BiXTEncoder(**settings, **VARIANTS[name], **options)
    model = BiXTClassifier(7, tokenizer=PointTokenizer(24, scale=10.0), encoder=encoder)
    torch.nn.init.normal_(model.head.weight)
    return model


def step(model):
    torch.manual_seed(1)
    loss = model(torch.rand(3, 32, 3)).square().sum()
    loss.backward()
    return loss


@variants
def test_checkpointing_changes_no_bit(name):
    """Loss, every gradient and every buffer: dropped paths and weights are those of the first pass, and batch
    norms count a batch once."""
    plain, checkpointed = classifier(name), classifier(name, checkpoint_activations=True)
    for _ in range(2):
        assert torch.equal(step(plain.train()), step(checkpointed.train()))
    others = dict(checkpointed.named_parameters())
    for key, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, others[key].grad), key
    state = checkpointed.state_dict()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_checkpointing_keeps_less_for_the_backward_pass():
    def kept(model):
        seen = {}

        def note(tensor):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(torch.rand(2, 256, 3)).sum()  # noqa: F841, keeps the graph alive
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        return sum(size for place, size in seen.items() if place not in weights)

    # hooks see what the outer graph keeps; the inner tensors of a checkpoint never get there
    assert kept(classifier("naive", checkpoint_activations=True).train()) < 0.5 * kept(
        classifier("naive").train()
    )


def test_checkpointing_rests_in_evaluation():
    model = classifier("grouping", checkpoint_activations=True).eval()
    torch.testing.assert_close(step(model), step(classifier("grouping").eval()), atol=0, rtol=0)


@variants
@pytest.mark.parametrize("chunk", [1, 7, 50, 96])
def test_chunks_change_no_number(name, chunk):
    plain, chunked = classifier(name).eval(), classifier(name, chunk=chunk).eval()
    points = torch.rand(3, 32, 3)
    with torch.no_grad():
        torch.testing.assert_close(chunked(points), plain(points), atol=1e-5, rtol=1e-6)  # logits of about 10


@pytest.mark.parametrize("name", ["attention", "token_mlp", "attention.token_ref_val", "token_mlp.mlp.act"])
def test_a_hook_sees_all_tokens_at_once(name):
    """Who looks at activations shall not find them cut into chunks."""
    plain, hooked, seen = classifier("naive").eval(), classifier("naive", chunk=10).eval(), []
    module = hooked.encoder.blocks[0].cross.get_submodule(name)
    module.register_forward_hook(lambda module, inputs, out: seen.append(inputs[-1].shape[:-1]))
    points = torch.rand(3, 32, 3)
    with torch.no_grad():
        torch.testing.assert_close(hooked(points), plain(points), atol=1e-5, rtol=1e-6)
    assert seen == [(3, 32)]


def tokens_and_centers():
    return torch.randn(3, 32, 24), torch.rand(3, 32, 3)


def test_layers_write_over_the_tokens_of_others_but_not_of_the_caller(monkeypatch):
    places = []

    def note(attend, latent_side, tokens, size, overwrite):
        result = attend_in_chunks(attend, latent_side, tokens, size, overwrite)
        places.append((tokens.data_ptr(), result[1].data_ptr()))
        return result

    monkeypatch.setattr(cross, "attend_in_chunks", note)
    tokens, centers = tokens_and_centers()
    before = tokens.clone()
    encoder = classifier("naive", chunk=10, dense=True).eval().encoder
    with torch.no_grad():
        encoder(tokens, centers)
        assert torch.equal(tokens, before)
        first, *others = places
        assert first[0] == tokens.data_ptr() != first[1]
        assert others == [(first[1], first[1])] * 2
        levels = encoder(tokens, centers, return_levels=True).levels
    assert len({level.tokens.data_ptr() for level in levels}) == 4


def test_tokens_that_a_hook_keeps_are_not_written_over():
    kept = {None: [], 10: []}

    def keep(chunk, module, inputs, out):
        kept[chunk].append(out[1])

    for chunk in kept:
        encoder = classifier("naive", chunk=chunk).eval().encoder
        for block in encoder.blocks:
            block.register_forward_hook(partial(keep, chunk))
        with torch.no_grad():
            torch.manual_seed(2)
            encoder(*tokens_and_centers())
    for got, expected in zip(kept[10], kept[None], strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-6)


def test_a_segmenter_in_chunks():
    def segmenter(chunk):
        torch.manual_seed(0)
        encoder = BiXTEncoder(depth=2, dim=24, num_latents=5, num_heads=3, dense=True, chunk=chunk)
        model = BiXTSegmenter(7, tokenizer=PointTokenizer(24, scale=10.0), encoder=encoder)
        torch.nn.init.normal_(model.head.weight)
        return model.eval()

    points = torch.rand(2, 33, 3)
    with torch.no_grad():
        torch.testing.assert_close(segmenter(10)(points), segmenter(None)(points), atol=1e-5, rtol=1e-6)


def test_chunks_are_of_the_size_asked_for_and_rest_where_gradients_are_recorded():
    seen = []

    def double(x):
        seen.append(x.shape[1])
        return 2 * x

    x = torch.rand(3, 10, 2)
    with torch.no_grad():
        assert torch.equal(in_chunks(double, x, chunk=12), 2 * x)
    assert seen == [12, 12, 6]  # of 3 clouds of 10 tokens
    seen.clear()
    in_chunks(double, x, chunk=12)
    assert seen == [10]
    points, drawn = torch.rand(3, 32, 3), []
    for chunk in (None, 4):  # in training stochastic depth draws once for each cloud, however they are cut
        model = classifier("naive", chunk=chunk).train()
        with torch.no_grad():
            drawn.append(model(points))
    torch.testing.assert_close(*drawn, atol=1e-5, rtol=1e-6)


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chunk: expected at least 1, got 0"):
        BiXTEncoder(chunk=0)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_only_the_tokens_are_ever_whole(backend):
    """The largest tensor of a pass in chunks is the stream of the tokens, not what attention and MLP make of it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.untyped_storage().nbytes())
            return out

    largest = {}
    for chunk in (8192, 64, None):
        encoder = BiXTEncoder(
            depth=2,
            dim=24,
            num_latents=5,
            num_heads=3,
            cross=partial(bidirectional_cross, backend=backend),
            chunk=chunk,
        )
        model = BiXTClassifier(7, tokenizer=PointTokenizer(24), encoder=encoder).eval()
        with torch.no_grad(), Largest() as mode:
            model(torch.rand(1, 8192, 3))
        largest[chunk] = mode.size / (8192 * 24 * 4)
    assert largest[8192] == 4  # the hidden layer
    assert largest[64] == 1
    assert largest[None] == 2  # the hidden layer of half of them


PEAK = """
import torch
from functools import partial
from bixt3d.layers import PointTokenizer
from bixt3d.models import BiXTClassifier, BiXTEncoder

def high_water():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

torch.manual_seed(0)
encoder = BiXTEncoder(depth=8, dim=96, num_heads=3, num_latents=8, {options})
model = BiXTClassifier(5, tokenizer=PointTokenizer(96), encoder=encoder)
model(torch.rand(1, 64, 3)).sum().backward()
before = high_water()
{run}
print((high_water() - before) / 1024)
"""
TRAIN = "model(torch.rand(4, 2048, 3)).sum().backward()"
INFER = "model.eval()\nwith torch.no_grad(): model(torch.rand(1, 65536, 3))"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("run", "options", "plain", "share"),
    [(TRAIN, "checkpoint_activations=True", "", 0.7), (INFER, "", "chunk=65536", 0.85)],
)
def test_peak_memory_of_a_process_is_lower(run, options, plain, share):
    def peak(chosen):
        code = PEAK.format(options=chosen, run=run)
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return float(done.stdout)

    assert peak(options) < share * peak(plain)
