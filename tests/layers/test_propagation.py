"""Feature propagation against PointMLP's own output, and against scipy's neighbours."""

from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from bixt3d.layers import FeaturePropagation

GOLDEN = Path(__file__).parents[1] / "golden" / "pointmlp_feature_propagation.npz"


def test_golden():
    with np.load(GOLDEN) as file:
        golden = {k: torch.from_numpy(file[k]) for k in file.files}
    names = {
        "fuse.net.": "fuse.",
        "extraction.operation.": "blocks.",
        "net1.": "expand.",
        "net2.": "contract.",
    }
    state = {}
    for key, value in golden.items():
        if key.startswith("state/"):
            ours = key.removeprefix("state/")
            for theirs, new in names.items():
                ours = ours.replace(theirs, new)
            state[ours] = value.squeeze(-1) if value.dim() == 3 else value
    module = FeaturePropagation(12, 20, 16, num_blocks=2).eval()
    module.load_state_dict(state, strict=True)
    out = module(golden["fine_xyz"], golden["coarse_xyz"], golden["fine_features"], golden["coarse_features"])
    torch.testing.assert_close(out, golden["out"], atol=1e-5, rtol=1e-5)


def interpolated(fine_points, coarse_points, coarse):
    """What the module interpolates: an identity fusion of coarse features alone."""
    module = FeaturePropagation(0, coarse.shape[-1], coarse.shape[-1], num_blocks=0, bias=False).eval()
    torch.nn.init.eye_(module.fuse[0].weight)
    module.fuse[1].eps = 0.0
    return module(fine_points, coarse_points, coarse.new_zeros(*fine_points.shape[:2], 0), coarse)


def test_weights_are_those_of_the_equation():
    generator = torch.Generator().manual_seed(0)
    fine, coarse = (torch.rand(1, n, 3, generator=generator) for n in (30, 7))
    features = torch.rand(1, 7, 4, generator=generator)  # positive, so that the ReLU passes them
    distance, index = cKDTree(coarse[0].numpy()).query(fine[0].numpy(), k=3)
    weights = 1 / (distance**2 + 1e-8)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = (weights[..., None] * features[0].numpy()[index]).sum(axis=1)
    found = interpolated(fine, coarse, features)[0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_single_coarse_point_is_repeated():
    features = torch.rand(2, 1, 4)
    found = interpolated(torch.rand(2, 9, 3), torch.rand(2, 1, 3), features)
    torch.testing.assert_close(found, features.expand(2, 9, 4))
