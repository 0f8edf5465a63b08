"""What the compiled backend does beyond the shared cases: large clouds, threads, instruction sets, absence."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from cases import grid

from bixt3d.ops import available_backends, ball_query, farthest_point_sample, knn, three_nn
from bixt3d.ops.backends import cpu_library

ROOT = Path(__file__).parents[2]
compiled = pytest.mark.skipif(not cpu_library.PATH.exists(), reason="the library is not compiled here")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_outlier():
    points = normal(1, 4500, 3, seed=1)
    points[0, 77] = 1e6
    return points


# Large enough for the search by boxes; the torch backend, held against the reference elsewhere, is the judge.
LARGE = {
    "normal": normal(2, 4500, 3),
    "lattice_with_ties": grid(1, 4500, 3, step=0.125, size=12),
    "two_positions": (torch.arange(4200)[None, :, None] % 3 > 0).float().repeat(1, 1, 3),
    "all_equal": torch.full((1, 4100, 3), 0.25),
    "flat": normal(1, 4500, 3) * torch.tensor([1.0, 1.0, 0.0]),
    "collinear": torch.arange(4500.0)[None, :, None] / 64 * torch.tensor([1.0, 2.0, -1.0]),
    "one_outlier": with_outlier(),
    "far_from_origin": normal(1, 4500, 3, seed=2) + 1e4,
    "float16": normal(1, 4500, 3, seed=3).half(),
    "odd_number": normal(1, 4097, 3, seed=4),
}
every_large = pytest.mark.parametrize("name", LARGE)


def queries_for(points, count=300):
    """Points of the cloud, points between them, and some far outside."""
    between = (points[:, :count] + points[:, -count:]) / 2
    return torch.cat([points[:, :count], between, points[:, :5] * 3 + 7], dim=1)


def same(got, expected):
    return all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@every_large
def test_farthest_points_of_large_clouds(level, name):
    points = LARGE[name]
    start = torch.full((len(points),), 1234)
    got = farthest_point_sample(points, 400, start=start, backend="cpu")
    assert torch.equal(got, farthest_point_sample(points, 400, start=start, backend="torch"))


@every_large
@pytest.mark.parametrize("k", [1, 24, 70])
def test_neighbours_in_large_clouds(level, name, k):
    points = LARGE[name]
    query = queries_for(points)
    assert same(knn(query, points, k, backend="cpu"), knn(query, points, k, backend="torch"))


@every_large
@pytest.mark.parametrize(("radius", "max_neighbors"), [(0.1, 8), (0.5, 200), (0.01, 3)])
def test_balls_in_large_clouds(level, name, radius, max_neighbors):
    points = LARGE[name]
    query = queries_for(points, 150)
    got = ball_query(query, points, radius, max_neighbors, backend="cpu")
    assert torch.equal(got, ball_query(query, points, radius, max_neighbors, backend="torch"))


@pytest.mark.parametrize("num_points", [63, 64, 65, 129, 1000])
@pytest.mark.parametrize("k", [1, 16, 48, 49, 63])
def test_neighbours_on_either_side_of_a_block(level, num_points, k):
    points = torch.stack([normal(num_points, 3), grid(num_points, 3, step=0.5, size=3)])
    query = points[:, : num_points // 2]
    assert same(knn(query, points, k, backend="cpu"), knn(query, points, k, backend="torch"))


def test_nearest_points_that_share_a_group_are_found(level):
    # The first limit comes from the least distances of 64 interleaved groups; here one group holds them all.
    points = normal(1, 64 * 50, 3) + 100
    points[0, ::64] = normal(50, 3, seed=1) * 0.01
    query = torch.zeros(1, 2, 3)
    for k in (3, 40, 50, 51):
        assert same(knn(query, points, k, backend="cpu"), knn(query, points, k, backend="torch"))


@pytest.mark.parametrize("num_clouds", [1, 3, 16])
def test_threads_and_repeated_runs_change_nothing(threads, num_clouds):
    points = normal(num_clouds, 5000, 3, seed=num_clouds)
    query = points[:, ::5]
    results = []
    for count in (1, 2, 3, 2):
        threads(count)
        results.append(
            (
                farthest_point_sample(points, 300),
                *knn(query, points, 24),
                ball_query(query, points, 0.2, 16),
                *three_nn(query, points[:, :1500]),
            )
        )
    assert all(same(result, results[0]) for result in results[1:])


def _sample(points):
    return farthest_point_sample(points, 200, backend="cpu").tolist()


@compiled
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_runs_in_a_forked_process(threads):
    threads(2)
    points = normal(8, 3000, 3)
    expected = _sample(points)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_sample, (points,)).get(timeout=60) == expected


FIRST_OP_IN_A_CHILD = """
import os
import torch
from bixt3d.ops import knn
torch.set_num_threads(2)
torch.rand(2_000_000).exp()  # starts torch's pool, which the child does not have
points = torch.rand(8, 2000, 3)
child = os.fork()
if child == 0:
    knn(points, points, 8, backend="cpu")
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@compiled
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_the_first_op_may_run_in_a_forked_process():
    command = [sys.executable, "-W", "ignore", "-c", FIRST_OP_IN_A_CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            assert parent.communicate(timeout=60)[0].strip() == "7"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)  # the child too, should it wait for ever


@compiled
def test_calls_from_several_python_threads_at_once(threads):
    threads(2)
    clouds = [normal(8, 3000, 3, seed=seed) for seed in range(4)]
    expected = [_sample(points) for points in clouds]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(_sample, clouds)) == expected


@compiled
def test_numbers_that_are_not_finite_stay_within_the_cloud():
    points = normal(1, 5000, 3)
    points[0, ::3] = float("nan")
    points[0, 1::3] = float("inf")
    query = points[:, :400]
    for cloud in (points, points[:, :90], torch.full((1, 4500, 3), float("nan"))):
        size = cloud.shape[1]
        index = [
            farthest_point_sample(cloud, min(size, 200), backend="cpu"),
            knn(query, cloud, 60, backend="cpu")[1],
            ball_query(query, cloud, 0.5, 9, backend="cpu"),
        ]
        assert all(((i >= 0) & (i < size)).all() for i in index)


@compiled
def test_a_query_of_no_numbers_reads_no_boxes_that_are_not_there():
    """In a cloud of this size what lies behind the boxes belongs to nobody, and reading it ends the process."""
    points = normal(1, 300_000, 3)
    query = torch.full((1, 400, 3), float("nan"))
    index = ball_query(query, points, 0.5, 9, backend="cpu")
    assert ((index >= 0) & (index < 300_000)).all()


@pytest.mark.parametrize("size", [4096, 4097, 20_000])
@pytest.mark.parametrize("other", [-float("inf"), float("nan")])
def test_a_query_at_minus_infinity_looks_at_the_cloud_alone(level, size, other):
    """To such a query boxes that only fill up their number are nearer than those with points in them."""
    points = normal(1, size, 3)
    query = points[:, :300].clone()
    query[0, 7] = torch.tensor([-float("inf"), other, other])
    nearest = knn(query, points, 5, backend="cpu")[1]
    ball = ball_query(query, points, 0.5, 5, backend="cpu")
    if other == -float("inf"):  # all are equally far
        assert nearest[0, 7].tolist() == [0, 1, 2, 3, 4]
    assert nearest[0, 7].max() < size
    assert ball[0, 7].tolist() == [0] * 5
    others = torch.arange(300) != 7
    assert torch.equal(nearest[:, others], knn(query[:, others], points, 5, backend="cpu")[1])


@compiled
def test_inputs_are_read_alone():
    points, start = normal(2, 3000, 3), torch.tensor([5, 6])
    before = points.clone()
    farthest_point_sample(points, 200, start=start, backend="cpu")
    knn(points[:, :400], points, 8, backend="cpu")
    assert torch.equal(points, before)
    assert start.tolist() == [5, 6]


@compiled
def test_it_comes_first_for_what_it_takes():
    points = normal(1, 9, 3)
    for op in ("farthest_point_sample", "knn", "ball_query", "three_nn"):
        assert available_backends(op)["cpu"] is None
    assert (
        next(name for name, reason in available_backends("knn", points, points, 2).items() if not reason)
        == "cpu"
    )
    reason = available_backends("knn", points.double(), points.double(), k=2)["cpu"]
    assert reason == "takes float16, bfloat16 and float32, not float64"
    assert available_backends("knn", points.to("meta"), points)["cpu"] == "needs tensors on the CPU"


@pytest.fixture
def library_at(monkeypatch):
    """Load the library from another place, and again from its own afterwards."""

    def put(path):
        monkeypatch.setattr(cpu_library, "PATH", path)
        cpu_library.load.cache_clear()

    yield put
    monkeypatch.undo()
    cpu_library.load.cache_clear()


def test_without_the_library_the_others_run(library_at, tmp_path):
    library_at(tmp_path / "_cpu.so")
    points = normal(1, 20, 3)
    assert "was not compiled" in available_backends("knn")["cpu"]
    assert torch.equal(knn(points, points, 3)[1], knn(points, points, 3, backend="torch")[1])
    with pytest.raises(
        NotImplementedError, match=r"knn cannot run: backend 'cpu' was not compiled when bixt3d"
    ):
        knn(points, points, 3, backend="cpu")


def test_a_file_that_is_no_library_is_a_reason(library_at, tmp_path):
    (tmp_path / "_cpu.so").write_bytes(b"nothing to load")
    library_at(tmp_path / "_cpu.so")
    assert "cannot be loaded" in available_backends("farthest_point_sample")["cpu"]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree")
@pytest.mark.parametrize("compiler", [True, False])
def test_the_build_needs_no_compiler(monkeypatch, tmp_path, compiler):
    if compiler and not shutil.which("g++"):
        pytest.skip("needs g++")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
        else:
            (tmp_path / name).touch()
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    (tmp_path / "bixt3d").mkdir()
    (tmp_path / "bixt3d" / "__init__.py").touch()
    if not compiler:
        for name in ("CC", "CXX"):
            monkeypatch.setenv(name, str(tmp_path / "no-such-compiler"))
    command = [sys.executable, "setup.py", "bdist_wheel"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert "-py3-none-" in wheel.name
    built = list((tmp_path / "build").glob("lib*/bixt3d/ops/backends/_cpu.so"))
    assert len(built) == compiler
