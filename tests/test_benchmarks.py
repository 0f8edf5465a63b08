"""The model benchmark: what it counts by hand, what it writes, and that a row runs."""

import importlib
import json
import subprocess
import sys

import pytest
import torch
from places import PATIENCE, ROOT

from bixt3d.config import read_yaml, to_yaml

FOLDER = ROOT / "benchmarks"
OF_ONE_EXPERIMENT = ("_cpu", "_cpu_hierarchy", "_speedrun", "_cattle", "_quickstart", "_normals")


@pytest.fixture
def benchmark(monkeypatch):
    """Import a file of benchmarks/ the way its script does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_operations_are_those_of_a_count_by_hand(benchmark):
    """BiXT-Ti: 12 layers, width 192, 64 latents; a map of n rows from a to b takes 2nab."""
    parameters, operations = benchmark("model_cases").count("bixt_naive", 1024)
    assert parameters == 14_794_408
    n, m, d = 1024, 64, 192
    mlp, square = 2 * 2 * d * 4 * d, 2 * d * d

    def attention(products, queries, keys):
        return products * 2 * queries * keys * d

    latent_layer = m * (mlp + 4 * square) + attention(2, m, m)
    two_sided = (n + m) * (3 * square + mlp) + attention(3, m, n)
    one_sided = m * (2 * square + mlp) + n * 2 * square + attention(2, m, n)
    ends = 2 * n * 96 * d + 2 * d * 40
    assert operations == 11 * two_sided + one_sided + 12 * latent_layer + ends


def test_the_exponent_is_a_slope(benchmark):
    report = benchmark("model_report")
    assert report.exponent([10, 100, 1000], [3.0, 30.0, 300.0]) == pytest.approx(1.0)
    assert report.exponent([10, 100, 1000], [1.0, 100.0, 10_000.0]) == pytest.approx(2.0)


def test_every_model_config_is_measured_at_full_size(benchmark):
    """A file for one experiment changes the sizes of a model that is measured, or its channels; it is not measured."""
    cases = benchmark("model_cases")
    files = {path.stem: read_yaml(path) for path in (ROOT / "cfgs" / "model").glob("*.yaml")}
    sized = set(files) - set(cases.MODELS)
    assert set(cases.MODELS) <= set(files)
    assert sized == {name for name in files if name.endswith(OF_ONE_EXPERIMENT)}
    for name in sized:
        assert files[name]["defaults"][0] in files
        assert "_target_" not in to_yaml(files[name]), f"{name} is a model of its own"


def test_a_section_is_replaced_and_the_rest_is_left_alone(benchmark, tmp_path):
    pages = benchmark("pages")
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n\nbefore\n")
    for text in ("one", "two"):
        pages.write("models", "Whole models", text, page)
        pages.write("ops", "Ops", "theirs", page)
    found = page.read_text()
    assert found.count("two") == found.count("theirs") == found.count("before") == 1
    assert "one" not in found
    assert found.count("## Whole models") == 1


def test_a_row_in_a_process_of_its_own(benchmark):
    row = benchmark("model_cases").Row("bixt_hierarchy", "eager", "inference", 1, 256)
    told = {"row": row.arguments(), "device": "cpu", "compile_mode": "default", "default_allocator": True}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "model_worker.py"), json.dumps(told)],
        input="\n\n",
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    first, *seconds = done.stdout.splitlines()
    assert [float(s) > 0 for s in seconds] == [True, True]
    if sys.platform.startswith("linux"):
        assert 0 < json.loads(first)["peak_mib"] < 500


def test_a_model_of_ones_own_is_measured_beside_those_of_its_field(benchmark, tmp_path, monkeypatch):
    cases = benchmark("model_cases")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat.py").write_text(
        "from torch import nn\n"
        "class Flat(nn.Sequential):\n"
        "    def __init__(self, num_classes: int, width: int):\n"
        "        super().__init__(nn.Linear(3, width), nn.Linear(width, num_classes))\n"
        "    def forward(self, points):\n"
        "        return super().forward(points).mean(dim=1)\n"
    )
    for name, width in (("mine.yaml", 8), ("run/config.yaml", 16)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"model: {{_target_: flat.Flat, width: {width}}}\ntask: {{_target_: bixt3d.tasks.Classification}}\n"
        )
    mine, run = cases.own_config("mine.yaml"), cases.own_config("run")
    sizes = {"inference": [(1, 64)]}
    ((_, rows),) = cases.throughput([mine, run, "pointmlp"], ["eager"], sizes, ["fp32"])
    assert [row.name for row in rows] == ["pointmlp", "mine", "run", cases.MATRIX]
    assert cases.count(mine, 64) == (3 * 8 + 8 + 8 * 40 + 40, 64 * 2 * (3 * 8 + 8 * 40))
    assert cases.count(run, 64)[0] == 3 * 16 + 16 + 16 * 40 + 40
    segmenter = cases.own_config(str(ROOT / "cfgs" / "quickstart_partseg.yaml"))
    assert cases.segments(segmenter)
    assert not cases.segments(mine)
    row = cases.Row(segmenter, "eager", "inference", 2, 256)
    model = cases.make_model(row)
    logits = model(*cases.inputs(row, model, "cpu"))
    assert logits.shape == (2, 256, cases.PARTS)
    with pytest.raises(
        ValueError, match=r"^nope: no such model; expected one of bixt_naive, .* the folder of a run"
    ):
        cases.own_config("nope")


def test_a_row_that_dies_is_lost_alone(benchmark, monkeypatch, tmp_path):
    models = benchmark("models")
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, sys\n"
        "row = json.loads(sys.argv[1])['row']\n"
        "sys.stderr.write('noise ' * 50_000 + '\\n')\n"
        "print(json.dumps({'peak_mib': None}), flush=True)\n"
        "for number, _ in enumerate(sys.stdin):\n"
        "    if row['clouds'] == 2 and number == 1: sys.exit('out of memory')\n"
        "    print(0.5, flush=True)\n"
    )
    monkeypatch.setattr(models, "WORKER", worker)
    options = models.parser().parse_args(["--rounds", "3"])
    rows = [models.Row("bixt_naive", "eager", "inference", clouds, 64) for clouds in (1, 2)]
    workers = [models.Worker(row, options) for row in rows]
    for _ in range(options.rounds):
        for each in workers:
            each.run()
    assert [each.failed for each in workers] == [None, ["out of memory"]]
    assert workers[0].taken == [0.5] * 3
    workers[0].close()


@pytest.mark.parametrize("op", ["knn", "three_nn"])
def test_a_backend_with_other_neighbours_is_not_timed(benchmark, op):
    cases, contenders, script = (benchmark(name) for name in ("ops_cases", "ops_contenders", "ops"))
    points = torch.rand(1, 9, 3)
    case = cases.Case(op, "small", (points, points, 3)[: 3 if op == "knn" else 2])
    wanted = contenders.expected(case)
    ours = next(contenders.contenders(case))
    assert script.verify(case, wanted, ours) == 1
    with pytest.raises(SystemExit, match="disagrees with 'torch'"):
        script.verify(case, (wanted[0], wanted[1].flip(-1)), ours)


def test_the_reference_runs_the_attention_of_that_name(benchmark):
    cases = benchmark("model_cases")
    model = cases.make_model(cases.Row("bixt_naive", "reference", "inference", 1, 64))
    assert model.encoder.blocks[0].cross.attention.backend == "reference"
    chunked = cases.make_model(
        cases.Row("bixt_seg_naive", "eager", "training", 1, 64, chunk=8, checkpoint=True)
    )
    assert chunked.encoder.chunk == 8
    assert chunked.encoder.checkpoint_activations
    assert torch.is_tensor(
        cases.inputs(cases.Row("pointmlp", "eager", "inference", 2, 64), chunked, "cpu")[0]
    )


def test_the_nearest_training_cloud_is_that_of_scipy(benchmark):
    from scipy.spatial import cKDTree

    splits = benchmark("splits")
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(12, 64, 3, generator=generator) * 2 - 1
    queries = train[:3] + 0.01 * torch.randn(3, 64, 3, generator=generator)

    def distance(one, other):
        there, back = cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]
        return (there.mean() + back.mean()) / 2

    brute = [[distance(q.numpy(), t.numpy()) for t in train] for q in queries]
    for candidates in (2, 12):
        distances, places = splits.nearest(queries, train, candidates)
        assert places.tolist() == [0, 1, 2]
        assert distances.tolist() == pytest.approx([row[i] for i, row in enumerate(brute)], rel=1e-5)
    others, places = splits.nearest(queries, train, 12, own=torch.tensor([0, 1, 2]))
    expected = [min((d, j) for j, d in enumerate(row) if j != i) for i, row in enumerate(brute)]
    assert places.tolist() == [j for _, j in expected]
    assert others.tolist() == pytest.approx([d for d, _ in expected], rel=1e-5)
