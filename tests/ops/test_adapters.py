"""Adapters of other packages, against stand-ins of the same interface and the same peculiarities."""

import sys
from types import ModuleType

import pytest
import torch
from cases import CLOUDS, grid

from bixt3d.ops import available_backends, farthest_point_sample, knn
from bixt3d.ops.backends import pointnet2_features, pointnet2_ops, reference, torch_cluster


def _pointnet2_sample(xyz, npoint):
    """Sample as the CUDA kernel does: from index 0, from distances of 1e10, blind around the origin."""
    assert xyz.dtype == torch.float32
    assert xyz.is_contiguous()
    index = torch.zeros(len(xyz), npoint, dtype=torch.int32)
    for b, cloud in enumerate(xyz):
        nearest = torch.full((len(cloud),), 1e10)
        seen = cloud.square().sum(1) > 1e-3
        for s in range(1, npoint):
            sq_dist = (cloud - cloud[index[b, s - 1]]).square()
            nearest = torch.minimum(nearest, sq_dist[:, 0] + sq_dist[:, 1] + sq_dist[:, 2])
            index[b, s] = torch.where(seen, nearest, -1).argmax() if seen.any() else 0
    return index


def _pointnet2_three_nn(unknown, known):
    """Return distances and int32 indices; 0 and infinity where there is no third point."""
    found = min(3, known.shape[1])
    distance = torch.full((*unknown.shape[:2], 3), torch.inf)
    index = torch.zeros(distance.shape, dtype=torch.int32)
    sq_dist, nearest = reference.knn(unknown, known, found)
    distance[..., :found], index[..., :found] = sq_dist.sqrt(), nearest.int()
    return distance, index


def _pointnet2_ball_query(radius, nsample, xyz, new_xyz):
    """Find the lowest hits of an open ball by distances that round once; 0 where there is none."""
    assert xyz.is_contiguous()
    assert new_xyz.is_contiguous()
    sq_radius = torch.tensor(radius, dtype=torch.float32).square()
    sq_dist = (new_xyz.double()[:, :, None] - xyz.double()[:, None]).square().sum(-1).float()
    index = torch.zeros(*new_xyz.shape[:2], nsample, dtype=torch.int32)
    for b, m in torch.cartesian_prod(*map(torch.arange, new_xyz.shape[:2])).tolist():
        hits = (sq_dist[b, m] < sq_radius).nonzero()[:nsample, 0]
        if len(hits):
            index[b, m] = hits[0]
            index[b, m, : len(hits)] = hits
    return index


def _pointnet2_arguments(features, index, *weights):
    assert features.dtype == torch.float32
    assert index.dtype == torch.int32
    assert all(x.is_contiguous() for x in (features, index, *weights))
    return index.long()[:, None].expand(-1, features.shape[1], *index.shape[1:])


def _pointnet2_gather(features, index):
    return features.gather(2, _pointnet2_arguments(features, index))


def _pointnet2_gather_grad(grad, index, num_points):
    index = _pointnet2_arguments(grad, index)
    return grad.new_zeros(*grad.shape[:2], num_points).scatter_add(2, index, grad)


def _pointnet2_interpolate(features, index, weight):
    rows = features[..., None].expand(-1, -1, -1, 3).gather(2, _pointnet2_arguments(features, index, weight))
    return (rows * weight[:, None]).sum(-1)


def _pointnet2_interpolate_grad(grad, index, weight, num_points):
    index = _pointnet2_arguments(grad, index, weight)
    shares = grad[..., None] * weight[:, None]
    return grad.new_zeros(*grad.shape[:2], num_points).scatter_add(2, index.flatten(2), shares.flatten(2))


def _cluster_fps(src, batch, ratio, random_start=True):
    assert not random_start
    picked, offset = [], 0
    for num_points in batch.bincount().tolist():
        num_samples = int((torch.tensor(float(num_points)) * ratio).ceil())
        cloud = src[None, offset : offset + num_points]
        index = reference.farthest_point_sample(cloud, num_samples, torch.zeros(1, dtype=torch.int64))
        picked.append(index[0] + offset)
        offset += num_points
    return torch.cat(picked)


def _cluster_knn(x, y, k, batch_x, batch_y):
    rows, columns = [], []
    for m, query in enumerate(y):
        candidates = (batch_x == batch_y[m]).nonzero()[:, 0]
        _, index = reference.knn(query[None, None], x[None, candidates], k)
        rows += [m] * k
        columns += candidates[index[0, 0]].tolist()
    return torch.tensor([rows, columns])


@pytest.fixture
def pointnet2(monkeypatch):
    package = ModuleType("pointnet2_ops")
    package.pointnet2_utils = ModuleType("pointnet2_ops.pointnet2_utils")
    package.pointnet2_utils.furthest_point_sample = _pointnet2_sample
    package.pointnet2_utils.three_nn = _pointnet2_three_nn
    package.pointnet2_utils.ball_query = _pointnet2_ball_query
    package.pointnet2_utils.gather_operation = _pointnet2_gather
    package.pointnet2_utils.three_interpolate = _pointnet2_interpolate
    package.pointnet2_utils._ext = ModuleType("pointnet2_ops._ext")
    package.pointnet2_utils._ext.gather_points_grad = _pointnet2_gather_grad
    package.pointnet2_utils._ext.three_interpolate_grad = _pointnet2_interpolate_grad
    monkeypatch.setitem(sys.modules, "pointnet2_ops", package)


@pytest.fixture
def cluster(monkeypatch):
    package = ModuleType("torch_cluster")
    package.fps, package.knn = _cluster_fps, _cluster_knn
    monkeypatch.setitem(sys.modules, "torch_cluster", package)


EXACT = [
    name
    for name, points in CLOUDS.items()
    if points.dtype != torch.float64 and not name.startswith("inexact")
]


@pytest.mark.parametrize("name", EXACT)
def test_pointnet2_ops_samples_as_the_contract_says(pointnet2, name):
    points = CLOUDS[name]
    start = torch.arange(len(points)) % points.shape[1]
    num_samples = (points.shape[1] + 1) // 2
    got = pointnet2_ops.farthest_point_sample(points, num_samples, start)
    assert got.dtype == torch.int64
    assert torch.equal(got, reference.farthest_point_sample(points, num_samples, start))


def test_pointnet2_ops_would_leave_points_near_the_origin_out(pointnet2):
    square = torch.tensor([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0], [0, 0, 0], [0.01, 0, 0]])[None]
    assert _pointnet2_sample(square, 6)[0].tolist() != [0, 3, 1, 2, 4, 5]
    for size in (1e-6, 1.0, 1e6, 1e15):
        got = pointnet2_ops.farthest_point_sample(square * size, 6, torch.zeros(1, dtype=torch.int64))
        assert got.tolist() == [[0, 3, 1, 2, 4, 5]]


@pytest.mark.parametrize("size", [1e-20, 1e-6, 1.0, 3e4, 1e15])
def test_every_point_is_clear_of_the_origin_and_distances_keep(size):
    points = torch.cat([torch.rand(3, 200, 3, generator=torch.Generator().manual_seed(0)) - 0.5] * 2, dim=1)
    points[0, :200] *= 1e-7  # half of the first cloud lies at the origin, as good as
    points[1, 7] = 0
    points = points * size
    moved = pointnet2_ops.clear_of_origin(points)
    assert (moved.square().sum(-1) > 1e-3).all()
    before = torch.cdist(points.double(), points.double()) / size
    after = torch.cdist(moved.double(), moved.double())
    for b in range(3):
        scale = after[b].max() / before[b].max()
        assert (after[b] / scale - before[b]).abs().max() < 2**-21
        assert after[b].max() ** 2 < 1e10
    # Without a point at the origin only the exponents change.
    assert torch.equal(torch.frexp(moved[2]).mantissa, torch.frexp(points[2]).mantissa)


@pytest.mark.parametrize("name", EXACT)
def test_pointnet2_ops_finds_the_three_nearest(pointnet2, name):
    points = CLOUDS[name]
    for got, expected in zip(
        pointnet2_ops.three_nn(points[:, ::2], points),
        reference.three_nn(points[:, ::2], points),
        strict=True,
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("name", EXACT)
def test_pointnet2_ops_finds_the_lowest_points_of_a_closed_ball(pointnet2, name):
    points = CLOUDS[name]
    query = torch.cat([points[:, :5], points[:, :2] + 2], dim=1)  # the last ones lie far from all points
    # Many points of these clouds lie at the first two radii exactly.
    for radius, max_neighbors in ((0.25, 3), (0.5, 7), (0.0078125, 2), (64.0, points.shape[1] + 2)):
        got = pointnet2_ops.ball_query(query, points, radius, max_neighbors)
        assert torch.equal(got, reference.ball_query(query, points, radius, max_neighbors))


def test_pointnet2_ops_gives_way_where_a_point_beyond_the_radius_took_a_place(pointnet2):
    points = torch.zeros(1, 4, 3)
    points[0, :, 0] = torch.tensor([1.0, 1.0, 0.5, 0.25]).nextafter(torch.tensor([2.0, 2.0, 0.5, 0.25]))
    query = torch.zeros(1, 1, 3)
    assert _pointnet2_ball_query(pointnet2_ops.WIDER_RADIUS, 2, points, query).tolist() == [[[0, 1]]]
    assert pointnet2_ops.ball_query(query, points, 1.0, 2).tolist() == [[[2, 3]]]


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(6)
    values = torch.randn(2, 7, 4, generator=generator)
    return values, torch.randint(7, (2, 5, 3), generator=generator), torch.rand(2, 5, 3, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pointnet2_ops_copies_rows_and_adds_them_up(pointnet2, features, dtype):
    values, index, _ = features
    values = values.mT.contiguous().mT.to(dtype).requires_grad_()
    out = pointnet2_features.group_points(values, index)
    assert torch.equal(out, reference.group_points(values, index))
    assert torch.equal(pointnet2_features.gather_points(values, index[:, :, 0]), out[:, :, 0])
    (grad,) = torch.autograd.grad(out.sum(), values)
    uses = torch.stack([torch.bincount(rows.flatten(), minlength=7) for rows in index])
    assert torch.equal(grad, uses[..., None].to(dtype).expand_as(values))


def test_pointnet2_ops_interpolates_and_differentiates_twice(pointnet2, features):
    values, index, weights = features
    seconds = []
    for module in (pointnet2_features, reference):
        leaves = [values.clone().requires_grad_(), weights.clone().requires_grad_()]
        out = module.three_interpolate(leaves[0], index, leaves[1])
        first = torch.autograd.grad(out.pow(3).sum(), leaves, create_graph=True)
        seconds.append((out, *first, *torch.autograd.grad(sum(x.pow(2).sum() for x in first), leaves)))
    for got, expected in zip(*seconds, strict=True):
        torch.testing.assert_close(got, expected)


def test_pointnet2_ops_takes_no_numbers_that_float32_cannot_hold(pointnet2, features):
    _, index, weights = features
    for values in (features[0].double(), index):
        reason = available_backends("group_points", values, index)["pointnet2_ops"]
        assert reason.startswith("takes float16, bfloat16 and float32, not ")
    reason = available_backends("three_interpolate", features[0], index, weights.double())["pointnet2_ops"]
    assert reason == "takes float16, bfloat16 and float32, not float64"


def test_pointnet2_ops_says_why_it_cannot_run(pointnet2, monkeypatch):
    points = grid(1, 4, 3)
    assert available_backends("three_nn", points, points)["pointnet2_ops"] == (
        "needs tensors on a CUDA device, got cpu"
    )
    with pytest.raises(NotImplementedError, match="'pointnet2_ops' needs tensors on a CUDA device"):
        farthest_point_sample(points, 2, backend="pointnet2_ops")


@pytest.mark.parametrize("name", CLOUDS)
def test_torch_cluster_samples_as_the_contract_says(cluster, name):
    points = CLOUDS[name]
    for num_samples in {1, (points.shape[1] + 1) // 2, points.shape[1]}:
        got = farthest_point_sample(points, num_samples, backend="torch_cluster")
        assert torch.equal(got, farthest_point_sample(points, num_samples, backend="reference"))


def test_torch_cluster_starts_where_it_is_told(cluster):
    points = torch.rand(3, 29, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)  # no ties
    start = torch.tensor([28, 0, 11])
    got = farthest_point_sample(points, 9, start=start, backend="torch_cluster")
    assert torch.equal(got, farthest_point_sample(points, 9, start=start, backend="reference"))


@pytest.mark.parametrize(
    "name", ["odd_sizes", "duplicates", "far_from_origin", "bfloat16", "inexact_float64"]
)
def test_torch_cluster_finds_neighbours(cluster, name):
    points = CLOUDS[name]
    query = points[:, ::5]
    for got, expected in zip(
        knn(query, points, 7, backend="torch_cluster"),
        knn(query, points, 7, backend="reference"),
        strict=True,
    ):
        assert torch.equal(got, expected)


def test_torch_cluster_is_never_chosen_by_itself(cluster, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("torch_cluster was chosen without being named")

    monkeypatch.setattr(sys.modules["torch_cluster"], "fps", refuse)
    assert available_backends("farthest_point_sample")["torch_cluster"] is None
    farthest_point_sample(grid(1, 9, 3), 3)


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    for module in (torch_cluster, pointnet2_ops):
        monkeypatch.setattr(module, "PACKAGE", "no_such_package_at_all")
    assert "pip install torch-cluster" in available_backends("knn")["torch_cluster"]
    assert "not installed" in available_backends("three_nn")["pointnet2_ops"]
    with pytest.raises(NotImplementedError, match="torch-cluster, which is not installed"):
        knn(grid(1, 3, 3), grid(1, 4, 3), 1, backend="torch_cluster")


def test_the_installed_torch_cluster_agrees():
    pytest.importorskip("torch_cluster", reason="torch-cluster is not installed")
    points = torch.rand(3, 100, 3, generator=torch.Generator().manual_seed(5))
    got = farthest_point_sample(points, 33, backend="torch_cluster")
    assert torch.equal(got, farthest_point_sample(points, 33, backend="torch"))
    for one, other in zip(
        knn(points[:, :20], points, 8, backend="torch_cluster"), knn(points[:, :20], points, 8), strict=True
    ):
        assert torch.equal(one, other)
