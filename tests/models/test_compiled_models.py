"""Whole models under torch.compile: one graph for any number of clouds and points, in both modes."""

from functools import partial

import pytest
import torch

from bixt3d.layers import GroupRefinement, PointTokenizer
from bixt3d.models import BiXTClassifier, BiXTEncoder, BiXTSegmenter

REFINEMENT = partial(GroupRefinement, num_neighbors=4, width=8)
VARIANTS = {
    "naive": {},
    "checkpointed": {"checkpoint_activations": True},
    "grouping": {"refinement": REFINEMENT},
    "hierarchy": {"refinement": partial(REFINEMENT, reduction=2)},
}
# a size may not equal another one or the 3 coordinates on the first call: they would share a symbol
SIZES = ((4, 64), (4, 96), (5, 130), (2, 77))


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def classifier(name, drop_path=0.2):
    torch.manual_seed(0)
    options = {
        "depth": 2,
        "dim": 24,
        "num_latents": 5,
        "num_heads": 3,
        "drop_path": drop_path,
        **VARIANTS[name],
    }
    model = BiXTClassifier(7, tokenizer=PointTokenizer(24, scale=10.0), encoder=BiXTEncoder(**options))
    torch.nn.init.normal_(model.head.weight)
    return model


def run_all_sizes(model, backend, training, *extra):
    """Compile on the first size; any further compilation raises."""
    compiled = torch.compile(model.train(training), fullgraph=True, dynamic=True, backend=backend)
    for i, (clouds, points) in enumerate(SIZES):
        cloud = torch.rand(clouds, points, 3)
        inputs = (cloud, *(make(clouds) for make in extra))
        with (
            torch.compiler.set_stance("fail_on_recompile" if i else "default"),
            torch.set_grad_enabled(training),
        ):
            out = compiled(*inputs)
            if training:
                out.square().sum().backward()
        if not training:
            torch.testing.assert_close(out, model(*inputs), atol=1e-4, rtol=1e-4)
    if training:
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", VARIANTS)
def test_one_graph_for_any_number_of_clouds_and_points(name, training):
    run_all_sizes(classifier(name), "aot_eager", training)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_segmenter_is_one_graph_too(training):
    encoder = BiXTEncoder(depth=2, dim=24, num_latents=5, num_heads=3, drop_path=0.2, dense=True)
    model = BiXTSegmenter(7, 3, tokenizer=PointTokenizer(24, scale=10.0), encoder=encoder)
    run_all_sizes(model, "aot_eager", training, lambda clouds: torch.arange(clouds) % 3)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["naive", "hierarchy"])
def test_generated_code_serves_any_number_of_clouds_and_points(name, training):
    run_all_sizes(classifier(name), "inductor", training)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["naive", "checkpointed"])
def test_generated_code_has_the_same_gradients(name):
    models = [classifier(name, drop_path=0.0).train() for _ in range(2)]
    points = torch.rand(4, 64, 3)
    for model, run in zip(models, (models[0], torch.compile(models[1], dynamic=True)), strict=True):
        run(points).square().sum().backward()
        assert model.head.weight.grad is not None
    others = dict(models[1].named_parameters())
    for key, parameter in models[0].named_parameters():
        error = (others[key].grad - parameter.grad).norm() / parameter.grad.norm().clamp(min=1e-6)
        assert error < 1e-4, key


@pytest.mark.slow
def test_training_with_reduced_overhead(tiny, one_thread, tmp_path):
    """On a CPU there are no CUDA graphs, but the setting trains all the same, and to the same weights."""
    from bixt3d.checkpoint import load_checkpoint
    from bixt3d.training.experiment import train

    calm = (
        "model.encoder.drop_path=0",
        "model.encoder.dropout=0",
        "train.epochs=2",
        "train.measure_test=false",
    )
    found = []
    for mode in ("false", "reduce-overhead"):
        folder = train(tiny(f"run_dir={tmp_path / mode}", f"train.compile={mode}", *calm))
        found.append(load_checkpoint(folder)["model"])
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, atol=1e-3, rtol=1e-3)
