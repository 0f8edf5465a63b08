import numpy as np
import pytest
import torch
from cases import CLOUDS, every_backend, every_cloud, grid, sq_distances, within_budget
from scipy.spatial import cKDTree
from torch.autograd import gradcheck, gradgradcheck

from bixt3d.ops import knn, three_interpolate, three_nn


def inputs(dtype=torch.float64, weights_dtype=None):
    generator = torch.Generator().manual_seed(6)
    features = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    index = torch.randint(7, (2, 5, 3), generator=generator)
    weights = torch.rand(2, 5, 3, generator=generator, dtype=torch.float64)
    return features.to(dtype), index, weights.to(weights_dtype or dtype)


@every_backend("three_nn")
@every_cloud()
def test_the_three_nearest_in_order(backend, name):
    points = CLOUDS[name]
    query = torch.cat([points[:, ::2], points[:, :2] * 0.5 + points[:, -2:] * 0.5], dim=1)
    sq_dist, index = three_nn(query, points, backend=backend)
    assert sq_dist.shape == index.shape == (*query.shape[:2], 3)
    assert index.dtype == torch.int64
    assert sq_dist.dtype == (torch.float64 if points.dtype == torch.float64 else torch.float32)
    distances = sq_distances(query, points)
    found = min(3, points.shape[1])
    if not name.startswith("inexact"):
        in_order = np.argsort(distances, axis=-1, kind="stable")[..., :found]
        np.testing.assert_array_equal(index[..., :found].numpy(), in_order)
    taken = np.take_along_axis(distances, index.numpy(), -1)
    np.testing.assert_allclose(sq_dist.numpy(), taken, rtol=1e-6, atol=0)
    # A cloud of one or two points: what was found last is repeated.
    assert (index[..., found:] == index[..., found - 1 : found]).all()
    expected = three_nn(query, points, backend="reference")
    assert torch.equal(sq_dist, expected[0])
    assert torch.equal(index, expected[1])


@every_backend("three_nn")
def test_agrees_with_a_kd_tree_and_with_knn(backend):
    points, query = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(1)).split([35, 15], dim=1)
    sq_dist, index = three_nn(query, points, backend=backend)
    distance, neighbours = cKDTree(points[0].numpy()).query(query[0].numpy(), 3)
    np.testing.assert_array_equal(index[0].numpy(), neighbours)
    np.testing.assert_allclose(sq_dist[0].sqrt().numpy(), distance, rtol=1e-5)
    assert torch.equal(index, knn(query, points, 3)[1])


def test_distances_are_not_differentiable():
    points = grid(1, 5, 3).requires_grad_()
    assert not three_nn(points, points)[0].requires_grad


@every_backend("three_nn")
def test_no_queries_give_no_neighbours(backend):
    assert three_nn(torch.zeros(2, 0, 3), torch.zeros(2, 5, 3), backend=backend)[1].shape == (2, 0, 3)
    assert three_nn(torch.zeros(0, 4, 3), torch.zeros(0, 2, 3), backend=backend)[1].shape == (0, 4, 3)


@every_backend("three_interpolate")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_adds_up_weighted_rows(backend, dtype):
    features, index, weights = inputs(dtype)
    rows = features.double().numpy()[np.arange(2)[:, None, None], index.numpy()]
    exact = torch.from_numpy(np.einsum("bmk,bmkc->bmc", weights.double().numpy(), rows))
    out = three_interpolate(features, index, weights, backend=backend)
    assert out.dtype == dtype
    within_budget(out, three_interpolate(features, index, weights, backend="reference"), exact)


@every_backend("three_interpolate")
def test_half_features_with_float32_weights_are_added_up_in_float32(backend):
    features, index, weights = inputs(torch.bfloat16, torch.float32)
    out = three_interpolate(features, index, weights, backend=backend)
    assert out.dtype == torch.bfloat16
    in_float32 = three_interpolate(features.float(), index, weights, backend=backend)
    assert torch.equal(out, in_float32.bfloat16())


@every_backend("three_interpolate")
def test_weights_of_one_copy_a_row(backend):
    features, index, _ = inputs(torch.float32)
    first_only = torch.tensor([1.0, 0, 0]).expand(2, 5, 3)
    out = three_interpolate(features, index, first_only, backend=backend)
    assert torch.equal(out, torch.stack([features[b, index[b, :, 0]] for b in range(2)]))


@every_backend("three_interpolate")
def test_differentiates_twice(backend):
    features, index, weights = inputs()

    def interpolate(features, weights):
        return three_interpolate(features, index, weights, backend=backend)

    leaves = (features.requires_grad_(), weights.requires_grad_())
    assert gradcheck(interpolate, leaves)
    assert gradgradcheck(interpolate, leaves)


@every_backend("three_interpolate")
@pytest.mark.parametrize("name", ["features", "weights"])
def test_gradients_equal_those_of_the_reference(backend, name):
    gradients = []
    for chosen, dtype in (
        (backend, torch.float32),
        ("reference", torch.float32),
        ("reference", torch.float64),
    ):
        features, index, weights = inputs(dtype)
        leaf = {"features": features, "weights": weights}[name].requires_grad_()
        three_interpolate(features, index, weights, backend=chosen).square().sum().backward()
        gradients.append(leaf.grad)
    within_budget(*gradients)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, i, w: three_nn(f, f), ValueError, r"query has shape \(2, 7, 4\), expected \(B, M, 3\)"),
        (
            lambda f, i, w: three_nn(f[..., :3], f[:, :0, :3]),
            ValueError,
            r"points has shape \(2, 0, 3\), expected at least one",
        ),
        (lambda f, i, w: three_nn(w, w, backend="x"), ValueError, "unknown backend of three_nn 'x'"),
        (
            lambda f, i, w: three_interpolate(f, i[..., :2], w),
            ValueError,
            r"index has shape \(2, 5, 2\), expected \(B, M, 3\)",
        ),
        (
            lambda f, i, w: three_interpolate(f, i, w[:, :4]),
            ValueError,
            r"weights has shape \(2, 4, 3\), expected \(2, 5, 3\), the shape of index",
        ),
        (lambda f, i, w: three_interpolate(f, i, w.long()), TypeError, "weights has dtype int64, expected"),
        (lambda f, i, w: three_interpolate(f.long(), i, w), TypeError, "features has dtype int64, expected"),
        (
            lambda f, i, w: three_interpolate(f, i, w.to("meta")),
            ValueError,
            "weights is on meta, expected cpu",
        ),
        (lambda f, i, w: three_interpolate(f, i, w, backend="x"), ValueError, "backend of three_interpolate"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(*inputs())
