"""Affine grouping followed by a linear map: the plain form against `AffineGrouping.project`.

python benchmarks/grouping.py [--clouds 8] [--points 1024] [--channels 64] [--rounds 5]

Both give the same numbers (checked first); forward and backward are timed in turn, medians are printed, and what
autograd keeps for the backward pass is counted tensor by tensor.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from bixt3d.allocator import keep_freed_memory
from bixt3d.layers import AffineGrouping


def kept_mib(form, *inputs: Tensor) -> float:
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = form(*inputs)
    storages[out.untyped_storage().data_ptr()] = out.untyped_storage().nbytes()
    return sum(storages.values()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clouds", type=int, default=8)
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    module = AffineGrouping(options.channels, num_neighbors=24, use_xyz=True)
    linear = nn.Linear(module.out_channels, options.channels, bias=False)
    points = torch.rand(options.clouds, options.points, 3)
    features = torch.randn(options.clouds, options.points, options.channels, requires_grad=True)
    neighbors = module(points, features.detach()).neighbor_index
    forms = {
        "plain": lambda: linear(module(points, features, neighbors).grouped),
        "project": lambda: module.project(points, features, linear, neighbors).grouped,
    }
    plain, fused = forms["plain"](), forms["project"]()
    torch.testing.assert_close(fused, plain, atol=1e-4, rtol=1e-4)
    weights = torch.randn_like(plain)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(options.rounds + 1):  # the first round warms up
        for name, form in forms.items():
            start = time.perf_counter()
            (form() * weights).sum().backward()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(s[1:]) for name, s in seconds.items()}
    kept = {name: kept_mib(form) for name, form in forms.items()}
    for name in forms:
        print(f"{name:<8} {1000 * medians[name]:8.1f} ms   kept for backward {kept[name]:7.1f} MiB")
    print(
        f"ratio    {medians['plain'] / medians['project']:8.2f}      {kept['plain'] / kept['project']:26.2f}"
    )


if __name__ == "__main__":
    main()
