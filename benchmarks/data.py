"""Measure the share of data loading in a training step, with batches of 32 clouds of 1,024 points.

python benchmarks/data.py [--device cpu] [--steps 5]

The loader samples 1,024 of 2,048 stored points, scales, shifts and shuffles them. The step is forward, backward and
AdamW of the 12-layer classifier. Both are timed in turn for every batch, and medians are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

from bixt3d.datasets import CloudLoader, PointClouds
from bixt3d.datasets.transforms import Compose, RandomScale, RandomShift, Shuffle
from bixt3d.models import bixt_naive
from bixt3d.training.allocator import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    device = torch.device(options.device)
    count = 32 * (options.steps + 2)
    rng = np.random.default_rng(0)
    clouds = PointClouds(
        points=rng.uniform(-1, 1, (count, 2048, 3)).astype(np.float32),
        labels=rng.integers(0, 40, count),
        classes=tuple(f"class {i}" for i in range(40)),
        names=tuple(map(str, range(count))),
    )
    loader = CloudLoader(
        clouds,
        batch_size=32,
        num_points=1024,
        transform=Compose([RandomScale(), RandomShift(), Shuffle()]),
        shuffle=True,
        drop_last=True,
        sampling="random",
        device=device,
    )
    model = bixt_naive(40).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    data, steps = [], []
    batches = loader.epoch(0)
    for _ in range(options.steps + 2):
        start = now()
        batch = next(batches)
        ready = now()
        F.cross_entropy(model(batch.points), batch.labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        data.append(ready - start)
        steps.append(now() - ready)
    wait, step = statistics.median(data[2:]), statistics.median(steps[2:])
    print(
        f"{device}: data {1000 * wait:.2f} ms, step {1000 * step:.1f} ms, "
        f"share {100 * wait / (wait + step):.3f} %"
    )


if __name__ == "__main__":
    main()
