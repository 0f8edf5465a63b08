"""Time and peak memory of a forward pass against the number of points.

python benchmarks/scaling.py [--points 1024 4096 16384 65536] [--repeats 3] [--out scaling.csv]

Each size runs in a fresh process, so that peak memory (the process's largest resident set, less what it was
before the pass) is its own. The exponent is the slope of a straight line through the logarithms.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import resource
import statistics
import subprocess
import sys
import time


def measure(points: int, repeats: int) -> dict[str, float]:
    import torch

    from bixt3d.allocator import keep_freed_memory
    from bixt3d.layers import PointTokenizer
    from bixt3d.models import BiXTClassifier, BiXTEncoder

    keep_freed_memory()
    torch.manual_seed(0)
    model = BiXTClassifier(40, tokenizer=PointTokenizer(192), encoder=BiXTEncoder()).eval()
    cloud = torch.rand(1, points, 3) * 2 - 1
    with torch.inference_mode():
        model(cloud[:, :64])  # libraries load and threads start here
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            model(cloud)
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"points": points, "seconds": statistics.median(seconds), "peak_mib": peak / 1024}


def exponent(rows: list[dict[str, float]], key: str) -> float:
    x = [math.log(r["points"]) for r in rows]
    y = [math.log(r[key]) for r in rows]
    return statistics.linear_regression(x, y).slope


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, nargs="+", default=[1024, 4096, 16384, 65536])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.repeats)))
        return
    rows = []
    for points in options.points:
        command = [sys.executable, __file__, "--one", str(points), "--repeats", str(options.repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print("{points:>8,} points  {seconds:8.3f} s  {peak_mib:8.1f} MiB".format(**rows[-1]), flush=True)
    print(f"exponent of time {exponent(rows, 'seconds'):.3f}, of memory {exponent(rows, 'peak_mib'):.3f}")
    if options.out:
        with open(options.out, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
