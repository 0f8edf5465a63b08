"""Inputs of the op benchmark, and everything that is timed on them: our backends and other packages.

A case is one op on inputs of one size. A contender is a function without arguments and a second one that turns what
it returns into a tensor to be compared: indices in general, distances where a package breaks ties as it likes.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bixt3d import ops
from bixt3d.ops import available_backends
from bixt3d.ops.backends import vectorized

HUGE = 10**10  # distances beyond which methods that compute all of them are left out


@dataclass(frozen=True)
class Case:
    """One op on one size; ``work`` is the number of distances that a brute-force method computes."""

    op: str
    label: str
    arguments: tuple[Any, ...]
    work: int


@dataclass(frozen=True)
class Contender:
    """Something to time: ``answer(run())`` is comparable with that of the other contenders."""

    name: str
    run: Callable[[], Any]
    answer: Callable[[Any], Tensor]
    ours: bool = False


def cases(device: str, quick: bool) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)

    def cloud(batch: int, points: int, channels: int = 3) -> Tensor:
        return torch.rand(batch, points, channels, generator=generator).to(device)

    sizes = [(32, 1024, 512), (8, 4096, 1024), (1, 100_000, 4096)]
    if not quick:
        sizes.append((1, 1_000_000, 16_384))
    for b, n, s in sizes:
        yield Case("farthest_point_sample", f"{b}x{n:,} -> {s:,}", (cloud(b, n), s), b * n * s)
    for b, m, n in ((32, 512, 1024), (8, 1024, 4096), (1, 4096, 100_000)):
        points = cloud(b, n)
        yield Case("knn", f"{b}x({m:,} of {n:,}), k 24", (points[:, :m].contiguous(), points, 24), b * m * n)
    for b, m, n, radius in ((32, 512, 1024, 0.2), (1, 4096, 100_000, 0.05)):
        points = cloud(b, n)
        arguments = (points[:, :m].contiguous(), points, radius, 32)
        yield Case("ball_query", f"{b}x({m:,} of {n:,}), r {radius}, K 32", arguments, b * m * n)
    points = cloud(32, 1024)
    yield Case("three_nn", "32x(1,024 of 512)", (points, points[:, :512].contiguous()), 2**24)
    features = cloud(8, 1024, 64)
    index = torch.randint(1024, (8, 1024, 24), generator=generator).to(device)
    yield Case("group_points", "8x1,024x24, C 64", (features, index), 0)


def contenders(case: Case) -> Iterator[Contender]:
    """Our backends that run here, in order of priority, then the packages that are installed."""
    op = getattr(ops, case.op)
    for name, reason in available_backends(case.op, *_full(case)).items():
        slow = name == "reference" or (name == "torch" and case.work > HUGE)
        if reason is None and not slow:
            yield Contender(name, lambda b=name: op(*case.arguments, backend=b), _answer(case), ours=True)
    yield from PEERS[case.op](case)


def _full(case: Case) -> tuple[Any, ...]:
    """Return the arguments of a backend, which unlike those of the op hold a tensor of start indices."""
    if case.op == "farthest_point_sample":
        points = case.arguments[0]
        return (*case.arguments, torch.zeros(len(points), dtype=torch.int64, device=points.device))
    return case.arguments


def _answer(case: Case) -> Callable[[Any], Tensor]:
    if case.op in ("knn", "three_nn"):
        return lambda result: result[0]
    return lambda result: result


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _batch_vector(clouds: Tensor) -> Tensor:
    return torch.arange(len(clouds), device=clouds.device).repeat_interleave(clouds.shape[1])


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

        for height in (3, 5, 7, 9):

            def run(height: int = height) -> list[Any]:
                sample = fpsample.bucket_fps_kdline_sampling
                return [sample(array, s, h=height, start_idx=0) for array in arrays]

            yield Contender(f"fpsample buckets, h {height}", run, _stacked)
    if _installed("open3d") and case.work < HUGE:
        import numpy
        import open3d

        as_points = open3d.utility.Vector3dVector
        as_clouds = [open3d.geometry.PointCloud(as_points(array.astype("float64"))) for array in arrays]

        def look_up(sampled: list[Any]) -> Tensor:  # it returns points, not indices
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

        x, y, in_x, in_y = (
            points.flatten(0, 1),
            query.flatten(0, 1),
            _batch_vector(points),
            _batch_vector(query),
        )
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

        x, y, in_x, in_y = (
            points.flatten(0, 1),
            query.flatten(0, 1),
            _batch_vector(points),
            _batch_vector(query),
        )
        yield Contender(
            "torch-cluster",
            lambda: torch_cluster.radius(x, y, radius, in_x, in_y, max_num_neighbors=k),
            lambda edges: edges,  # other hits than the lowest: not comparable
        )


def _group_peers(case: Case) -> Iterator[Contender]:
    features, index = case.arguments
    rows = (
        index + torch.arange(len(index), device=index.device)[:, None, None] * features.shape[1]
    ).flatten()
    shape = (*index.shape, features.shape[2])
    yield Contender(
        "torch.index_select, unchecked",
        lambda: features.flatten(0, 1).index_select(0, rows).view(shape),
        lambda out: out,
    )


PEERS: dict[str, Callable[[Case], Iterator[Contender]]] = {
    "farthest_point_sample": _farthest_peers,
    "knn": _knn_peers,
    "ball_query": _ball_peers,
    "three_nn": _knn_peers,
    "group_points": _group_peers,
}


def expected(case: Case) -> Tensor:
    """Return what the torch backend answers, the judge of all others."""
    return _answer(case)(getattr(vectorized, case.op)(*_full(case)))


def threads_in_use() -> str:
    return f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
