"""What latents of a model attend to, for every point of a cloud; and the same model compiled."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from test_predictor import CLASSES, PARTS, RadiusClassifier, cloud

from bixt3d.inference.predictor import Predictor
from bixt3d.io import unit_sphere
from bixt3d.layers import GroupRefinement, PointTokenizer
from bixt3d.models import BiXTClassifier, BiXTEncoder


def bixt(**options):
    torch.manual_seed(0)
    model = BiXTClassifier(
        len(CLASSES),
        tokenizer=PointTokenizer(dim=24, in_channels=3, scale=20.0, temperature=100.0),
        encoder=BiXTEncoder(depth=2, dim=24, num_latents=4, num_heads=2, **options),
    )
    return Predictor(model, classes=CLASSES, num_points=64)


@pytest.mark.parametrize("count", [40, 64, 200])
def test_attention_is_a_distribution_over_all_points(count):
    weights = bixt().attention(cloud(count), [0, 3])
    assert weights.shape == (2, count)
    # up to the few points that fill the last subset and so are seen twice
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-4 if count <= 64 else 0.25)
    assert (weights > 0).all()
    assert weights.std(axis=1).min() > 0


def test_attention_of_a_single_pass_is_the_models_own():
    predictor, points = bixt(), cloud(50)
    centred = points - points.mean(axis=0)
    batch = torch.tensor(centred / np.linalg.norm(centred, axis=1).max(), dtype=torch.float32)[None]
    with torch.no_grad():
        layers = predictor.model.forward_features(batch, return_attention=True)[-1]
    for layer in (0, 1):
        expected = layers[layer].maps.latents_from_tokens[0].mean(dim=0)[2]
        assert np.allclose(predictor.attention(points, [2], layer=layer)[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match="latents 0 to 3, got 4"):
        predictor.attention(points, [4])
    with pytest.raises(ValueError, match="layers 0 to 1, got 2"):
        predictor.attention(points, [0], layer=2)


def test_attention_where_tokens_are_fewer_is_that_of_the_nearest_token():
    predictor = bixt(refinement=partial(GroupRefinement, num_neighbors=4, width=8, reduction=2))
    points = unit_sphere(np.random.default_rng(0).normal(size=(50, 3)))
    with torch.no_grad():
        layers = predictor.model.forward_features(torch.from_numpy(points)[None], return_attention=True)[-1]
    for layer, tokens in ((0, 25), (1, 12)):
        maps, centers = layers[layer]
        nearest = cKDTree(centers[0].numpy()).query(points)[1]
        assert len(set(nearest)) == tokens
        expected = maps.latents_from_tokens[0].mean(dim=0)[2].numpy()[nearest]
        assert np.allclose(predictor.attention(points, [2], layer=layer)[0], expected, atol=1e-6)


@pytest.mark.parametrize("parts", [False, True])
def test_attention_with_strays_is_that_of_the_nearest_point_that_is_left(parts):
    """A stray takes the weight of a point that stays; the others have the weights of the cloud without strays."""
    surface = np.random.default_rng(0).normal(size=(90, 3))
    surface /= np.linalg.norm(surface, axis=1, keepdims=True)
    model = bixt().model
    options = {"classes": CLASSES, "num_points": 64, "parts": PARTS if parts else ()}
    clean = Predictor(model, **options).attention(surface, [0, 2])
    dirty = Predictor(model, **options, drop_strays=True).attention(
        np.concatenate([surface, [[0, 0, 40.0]]]), [0, 2]
    )
    np.testing.assert_allclose(dirty[:, :90], clean, atol=1e-7)
    nearest = np.linalg.norm(surface - [0, 0, 40.0], axis=1).argmin()
    assert (dirty[:, 90] == dirty[:, nearest]).all()


def test_a_model_without_latents_has_no_attention():
    with pytest.raises(ValueError, match=r"attention: RadiusClassifier has no latents"):
        Predictor(RadiusClassifier(), classes=CLASSES).attention(cloud(30), [0])


@pytest.mark.slow
def test_a_compiled_model_predicts_the_same():
    options = {"classes": CLASSES, "num_points": 96}
    model = bixt().model
    torch.nn.init.normal_(model.head.weight)
    plain, compiled = Predictor(model, **options), Predictor(model, **options, compile=True)
    for count in (96, 40, 150):
        expected = plain(cloud(count)).probabilities
        np.testing.assert_allclose(compiled(cloud(count)).probabilities, expected, atol=1e-5)
