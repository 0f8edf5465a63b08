"""Measure the share of each op on points in a training step, forward and backward.

python benchmarks/ops_share.py [cfgs/modelnet40_hierarchy.yaml] [key=value ...] [--clouds 4] [--steps 5]

One step is forward, cross-entropy, backward and AdamW of the classifier of a config on random clouds, under torch's
profiler. The time of an op is that of its custom op, or of the torch operation if the backend is torch. Attention
between latents and tokens is printed but not counted, since it is not an op on points. Figures are medians over the
steps. On a busy machine, use OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from bixt3d.config import compose
from bixt3d.training.allocator import keep_freed_memory
from bixt3d.training.assembly import build_model, build_task

ROOT = Path(__file__).parents[1]
TORCH_FORMS = ("aten::gather", "aten::scatter_add")  # of gather_points and group_points


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default=str(ROOT / "cfgs" / "modelnet40_hierarchy.yaml"))
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--clouds", type=int, default=4, help="clouds per batch (default: 4)")
    parser.add_argument("--points", type=int, default=1024, help="points per cloud (default: 1024)")
    parser.add_argument("--steps", type=int, default=5, help="measured steps (default: 5)")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    config = compose(options.config, options.overrides, config_root=ROOT / "cfgs")
    model = build_model(config, build_task(config, [f"class {i}" for i in range(40)])).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    points = torch.rand(options.clouds, options.points, 3) * 2 - 1
    labels = torch.randint(40, (options.clouds,))

    def step() -> float:
        start = time.perf_counter()
        F.cross_entropy(model(points), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        return 1000 * (time.perf_counter() - start)

    step()
    steps: list[float] = []
    taken: dict[str, list[float]] = {}
    calls: dict[str, int] = {}
    for _ in range(options.steps):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            steps.append(step())
        for event in profiler.key_averages():
            if event.key.startswith("bixt3d::") or event.key in TORCH_FORMS:
                taken.setdefault(event.key, []).append(event.cpu_time_total / 1000)
                calls[event.key] = event.count
    whole = statistics.median(steps)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    attention = {name for name in medians if "attention" in name}
    print(
        f"{Path(options.config).stem}, {options.clouds}x{options.points:,}, {torch.get_num_threads()} threads: "
        f"{whole:.1f} ms per step"
    )
    for name in sorted(medians, key=lambda name: (name in attention, -medians[name])):
        apart = "  (not counted)" if name in attention else ""
        print(
            f"{name:<46} {calls[name]:>3} calls {medians[name]:8.2f} ms {100 * medians[name] / whole:6.2f} %{apart}"
        )
    total = sum(time for name, time in medians.items() if name not in attention)
    print(f"{'ops on points':<46} {'':>9} {total:8.2f} ms {100 * total / whole:6.2f} %")


if __name__ == "__main__":
    main()
