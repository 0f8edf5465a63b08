"""Contenders of the op benchmark: the backends of the toolkit and other packages.

A contender is a function without arguments, and a second one that turns its result into a tensor for comparison. These
are indices in general, and distances where a package may order ties differently.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from ops_cases import Case
from torch import Tensor

from bixt3d import ops
from bixt3d.ops import available_backends
from bixt3d.ops.backends import vectorized

HUGE = 10**10  # number of distances above which brute-force methods are skipped


@dataclass(frozen=True)
class Contender:
    """A function to time. ``answer(run())`` is comparable among the contenders of a case."""

    name: str
    run: Callable[[], Any]
    answer: Callable[[Any], Tensor]
    ours: bool = False


def contenders(case: Case) -> Iterator[Contender]:
    """Yield the backends that can run, in order of priority, then the installed packages."""
    for name in _runnable(case):
        if not _too_slow(case, name):
            yield Contender(name, _call(case, name), answer(case), ours=True)
    yield from PEERS[case.op](case)


def left_out(case: Case) -> list[str]:
    """Return the names of contenders that are skipped because they would take minutes."""
    ours = [f"bixt3d `{name}`" for name in _runnable(case) if name != "reference" and _too_slow(case, name)]
    packages = {"torch_cluster": "torch-cluster", "open3d": "open3d"} if case.work > HUGE else {}
    return ours + [shown for name, shown in packages.items() if _installed(name)]


def _runnable(case: Case) -> list[str]:
    return [name for name, reason in available_backends(case.op, *_full(case)).items() if reason is None]


def _too_slow(case: Case, name: str) -> bool:
    return name == "reference" or (name in ("torch", "torch_cluster") and case.work > HUGE)


def _call(case: Case, backend: str) -> Callable[[], Any]:
    op = getattr(ops, case.op)
    if case.grad is None:
        return lambda: op(*case.arguments, backend=backend)
    features, *others = case.arguments
    features = features.clone().requires_grad_()
    out = op(features, *others, backend=backend)
    return lambda: torch.autograd.grad(out, features, case.grad, retain_graph=True)[0]


def _full(case: Case) -> tuple[Any, ...]:
    """Return the arguments of a backend, which unlike those of the op include a tensor of start indices."""
    if case.op == "farthest_point_sample":
        points = case.arguments[0]
        return (*case.arguments, torch.zeros(len(points), dtype=torch.int64, device=points.device))
    return case.arguments


def answer(case: Case) -> Callable[[Any], Tensor]:
    """Return a function that makes a result of the op comparable with those of other packages."""
    if case.op in ("knn", "three_nn"):
        return lambda result: result[0]
    return lambda result: result


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _batch_vector(clouds: Tensor) -> Tensor:
    return torch.arange(len(clouds), device=clouds.device).repeat_interleave(clouds.shape[1])


def _concatenated(points: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the clouds in the format of torch-cluster: concatenated, with the index of each point's cloud."""
    return points.flatten(0, 1), query.flatten(0, 1), _batch_vector(points), _batch_vector(query)


def _farthest_peers(case: Case) -> Iterator[Contender]:
    points, s = case.arguments
    b, n = points.shape[:2]
    flat, batch = points.flatten(0, 1), _batch_vector(points)
    if _installed("torch_cluster") and case.work < HUGE:
        from torch_cluster import fps

        def answer(index: Tensor) -> Tensor:
            return index.view(b, -1)[:, :s] - torch.arange(b, device=index.device)[:, None] * n

        ratio = math.nextafter(s / n, 0.0) if math.ceil(n * (s / n)) > s else s / n
        yield Contender("torch-cluster", lambda: fps(flat, batch, ratio, random_start=False), answer)
    if _installed("pointnet2_ops") and points.is_cuda:
        from pointnet2_ops.pointnet2_utils import furthest_point_sample

        yield Contender("pointnet2_ops", lambda: furthest_point_sample(points, s), lambda index: index.long())
    if points.is_cuda:
        return
    arrays = list(points.numpy())
    if _installed("fpsample"):
        import fpsample

        for height in (3, 5, 7, 9) if case.work < HUGE else (7, 9):

            def run(height: int = height) -> list[Any]:
                sample = fpsample.bucket_fps_kdline_sampling
                return [sample(array, s, h=height, start_idx=0) for array in arrays]

            yield Contender(f"fpsample buckets, h {height}", run, _stacked)
    if _installed("open3d") and case.work < HUGE:
        import numpy
        import open3d

        as_points = open3d.utility.Vector3dVector
        as_clouds = [open3d.geometry.PointCloud(as_points(array.astype("float64"))) for array in arrays]

        def look_up(sampled: list[Any]) -> Tensor:  # open3d returns points, not indices
            index = []
            for array, picked in zip(arrays, sampled, strict=True):
                place = {row.tobytes(): i for i, row in enumerate(array)}
                index.append([place[row.tobytes()] for row in numpy.asarray(picked.points, "float32")])
            return torch.tensor(index)

        yield Contender("open3d", lambda: [c.farthest_point_down_sample(s) for c in as_clouds], look_up)


def _stacked(arrays: list[Any]) -> Tensor:
    return torch.stack([torch.as_tensor(array.astype("int64")) for array in arrays])


def _knn_peers(case: Case) -> Iterator[Contender]:
    query, points = case.arguments[:2]
    k = case.arguments[2] if case.op == "knn" else 3
    b, m = query.shape[:2]
    step = max(1, 2**28 // points.shape[1])

    def cdist_topk() -> Tensor:
        parts = [torch.cdist(part, points).topk(k, largest=False).values for part in query.split(step, dim=1)]
        return torch.cat(parts, dim=1)

    def subtract_topk() -> tuple[Tensor, Tensor]:
        return (query[:, :, None] - points[:, None]).square().sum(-1).topk(k, largest=False)

    yield Contender("torch.cdist + topk", cdist_topk, torch.square)
    if 12 * case.work < 2**31:
        yield Contender("torch subtraction + topk", subtract_topk, lambda result: result[0])
    if _installed("torch_cluster"):
        import torch_cluster

        x, y, in_x, in_y = _concatenated(points, query)
        yield Contender(
            "torch-cluster",
            lambda: torch_cluster.knn(x, y, k, in_x, in_y, num_workers=1),
            lambda edges: (y[edges[0]] - x[edges[1]]).square().sum(-1).view(b, m, k).sort(dim=-1).values,
        )
    if points.is_cuda:
        return
    pairs = list(zip(query.numpy(), points.numpy(), strict=True))

    def squares(results: list[Any]) -> Tensor:
        return torch.stack([torch.as_tensor(distance).float() for distance, _ in results]).square()

    if _installed("pykdtree"):
        from pykdtree.kdtree import KDTree

        yield Contender("pykdtree", lambda: [KDTree(p).query(q, k) for q, p in pairs], squares)
    if _installed("scipy"):
        from scipy.spatial import cKDTree

        workers = torch.get_num_threads()
        yield Contender(
            "scipy cKDTree", lambda: [cKDTree(p).query(q, k, workers=workers) for q, p in pairs], squares
        )
    if _installed("faiss"):
        import faiss

        yield Contender(
            "faiss", lambda: [faiss.knn(q, p, k) for q, p in pairs], lambda results: squares(results).sqrt()
        )


def _ball_peers(case: Case) -> Iterator[Contender]:
    query, points, radius, k = case.arguments
    if _installed("pointnet2_ops") and points.is_cuda:
        from pointnet2_ops.pointnet2_utils import ball_query

        yield Contender(
            "pointnet2_ops", lambda: ball_query(radius, k, points, query), lambda index: index.long()
        )
    if _installed("torch_cluster"):
        import torch_cluster

        x, y, in_x, in_y = _concatenated(points, query)
        yield Contender(
            "torch-cluster",
            lambda: torch_cluster.radius(x, y, radius, in_x, in_y, max_num_neighbors=k),
            lambda edges: edges,  # not the hits of lowest index, so not comparable
        )


def _row_peers(case: Case) -> Iterator[Contender]:
    """Yield flat indexing, which does not check that an index stays in its cloud."""
    features, index = case.arguments
    b, n, c = features.shape
    clouds = torch.arange(b, device=index.device).view(-1, *[1] * (index.ndim - 1))
    rows = (index + clouds * n).flatten()
    if case.grad is None:
        yield Contender(
            "torch.index_select, unchecked",
            lambda: features.flatten(0, 1).index_select(0, rows).view(*index.shape, c),
            lambda out: out,
        )
    else:
        grad = case.grad.view(-1, c)
        yield Contender(
            "torch.index_add, unchecked",
            lambda: features.new_zeros(b * n, c).index_add_(0, rows, grad).view(b, n, c),
            lambda out: out,
        )


def _no_peers(case: Case) -> Iterator[Contender]:
    return iter(())


PEERS: dict[str, Callable[[Case], Iterator[Contender]]] = {
    "farthest_point_sample": _farthest_peers,
    "knn": _knn_peers,
    "ball_query": _ball_peers,
    "three_nn": _knn_peers,
    "gather_points": _row_peers,
    "group_points": _row_peers,
    "three_interpolate": _no_peers,
}


def expected(case: Case) -> Any:
    """Return the result of the torch backend, with which all others are compared."""
    if case.grad is not None:
        return _call(case, "torch")()
    return getattr(vectorized, case.op)(*_full(case))
