"""PointMLP against outputs of its authors' code (tests/golden/README.md) and its published sizes."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from bixt3d.models import PointMLPClassifier, PointMLPDecoder, PointMLPEncoder, PointMLPSegmenter
from bixt3d.models.convert_pointmlp import pointmlp_from_official

GOLDEN = Path(__file__).parents[1] / "golden"
PART_STAGES = {"in_channels": 6, "use_xyz": True, "bias": True, "num_neighbors": (32,) * 4}
PART_STAGES |= {"reductions": (4,) * 4}


def read(name: str) -> tuple[dict, dict]:
    with np.load(GOLDEN / name) as file:
        arrays = {k: torch.from_numpy(file[k]) for k in file.files}
    state = {k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")}
    return state, {k: v for k, v in arrays.items() if not k.startswith("state/")}


def small_segmenter() -> PointMLPSegmenter:
    return PointMLPSegmenter(
        50,
        16,
        encoder=PointMLPEncoder(
            **{**PART_STAGES, "num_neighbors": (8, 8, 8, 4), "reductions": (4, 4, 2, 2), "embedding_dim": 8}
        ),
        decoder=partial(
            PointMLPDecoder, widths=(64, 32, 16, 16), num_blocks=2, context_dim=8, category_dim=8
        ),
    )


def test_classifier_golden():
    state, golden = read("pointmlp_classifier_small.npz")
    encoder = PointMLPEncoder(embedding_dim=8, num_neighbors=(8,) * 4)
    model = PointMLPClassifier(10, encoder=encoder).eval()
    model.load_state_dict(pointmlp_from_official(state), strict=True)
    torch.testing.assert_close(model(golden["points"]), golden["logits"], atol=1e-4, rtol=0)


def test_segmenter_golden():
    state, golden = read("pointmlp_partseg_small.npz")
    model = small_segmenter().eval()
    model.load_state_dict(pointmlp_from_official({f"module.{k}": v for k, v in state.items()}), strict=True)
    points = torch.cat((golden["points"], golden["normals"]), dim=-1)
    ours = model(points, golden["category"]).log_softmax(dim=-1)
    torch.testing.assert_close(ours, golden["log_probs"], atol=1e-4, rtol=0)
    other = model(points, golden["category"].flip(0)).log_softmax(dim=-1)
    assert (other - ours).abs().max() > 1e-2  # the category is read


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (lambda: PointMLPClassifier(40, encoder=PointMLPEncoder()), 13_238_504),
        (
            lambda: PointMLPClassifier(
                40,
                encoder=PointMLPEncoder(
                    embedding_dim=32,
                    width_factors=(2, 2, 2, 1),
                    blocks_before=(1, 1, 2, 1),
                    blocks_after=(1, 1, 2, 1),
                    expansion=0.25,
                ),
            ),
            716_232,
        ),
        (lambda: PointMLPSegmenter(50, 16, encoder=PointMLPEncoder(**PART_STAGES)), 16_755_594),
    ],
    ids=["classifier", "elite", "segmenter"],
)
def test_published_size(build, parameters):
    assert sum(p.numel() for p in build().parameters()) == parameters


def test_every_parameter_is_used():
    model = small_segmenter()
    model(torch.rand(2, 256, 6), torch.tensor([0, 3])).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_fewest_points():
    model = PointMLPClassifier(5, encoder=PointMLPEncoder(embedding_dim=4, num_neighbors=(4,) * 4))
    assert model.min_points == 32
    model(torch.rand(2, 32, 3))
    with pytest.raises(
        ValueError, match=r"points: expected at least 32 in each cloud \(min_points .*, got 31"
    ):
        model(torch.rand(2, 31, 3))


def test_bad_input():
    with pytest.raises(
        ValueError, match="reductions: expected 4 numbers, one for each of width_factors, got 2"
    ):
        PointMLPEncoder(reductions=(2, 2))
    with pytest.raises(ValueError, match=r"in_channels: expected 3 .* or 6 .*, got 4"):
        PointMLPEncoder(in_channels=4)
    with pytest.raises(
        ValueError, match=r"expected shape \(B, N, 6\) with xyz and normal, got \(1, 256, 3\)"
    ):
        small_segmenter()(torch.rand(1, 256, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"widths: expected 2, .* 3 levels .*, got 4"):
        PointMLPDecoder(level_dims=(4, 8, 16), num_parts=5)
    with pytest.raises(ValueError, match=r"not of an official PointMLP, the first is 'layer1\.weight'"):
        pointmlp_from_official({"layer1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="not of an official PointMLP"):
        pointmlp_from_official({"pre_blocks_list.0.operation.0.net3.0.weight": torch.zeros(1)})
