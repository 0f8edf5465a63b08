"""Time affine grouping, a linear map, batch norm and max-pooling, with and without materialised groups.

python benchmarks/grouping.py [--clouds 8] [--points 1024] [--channels 64] [--rounds 5]

`plain` maps all groups. `projected` maps every point once and then forms groups (`AffineGrouping.project`). `pooled`
forms no groups (`pool_normalised`). All give the same results, which is checked first. Forward and backward are timed
in interleaved rounds. Printed are medians of processor time, and the memory of all tensors that autograd keeps for the
backward pass.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bixt3d.layers import AffineGrouping
from bixt3d.layers.pointwise import ChannelBatchNorm
from bixt3d.layers.refinement import pool_normalised
from bixt3d.ops import group_max
from bixt3d.training.allocator import keep_freed_memory


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
    norm = ChannelBatchNorm(options.channels)
    points = torch.rand(options.clouds, options.points, 3)
    features = torch.randn(options.clouds, options.points, options.channels, requires_grad=True)
    neighbors = module(points, features.detach()).neighbor_index
    forms: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: group_max(norm(linear(module(points, features, neighbors).grouped))),
        "projected": lambda: group_max(norm(module.project(points, features, linear, neighbors).grouped)),
        "pooled": lambda: pool_normalised(module.project(points, features, linear, neighbors), norm),
    }
    for precision in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            compare(forms, precision, options.rounds)


def compare(forms: dict[str, Callable[[], Tensor]], precision: torch.dtype, rounds: int) -> None:
    """Print time and memory of every form, and how many times faster and smaller it is than `plain`."""
    plain, *others = (form() for form in forms.values())
    tolerance = 1e-3 if precision == torch.float32 else 0.1
    for other in others:
        torch.testing.assert_close(other.float(), plain.float(), atol=tolerance, rtol=tolerance)
    weights = torch.randn_like(plain)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds + 1):  # the first round warms up
        for name, form in forms.items():
            start = time.process_time()
            (form() * weights).sum().backward()
            seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(s[1:]) for name, s in seconds.items()}
    kept = {name: kept_mib(form) for name, form in forms.items()}
    for name in forms:
        faster, smaller = (ours["plain"] / ours[name] for ours in (medians, kept))
        print(
            f"{precision}  {name:<10} {1000 * medians[name]:8.1f} ms ({faster:.2f}x)   "
            f"kept for backward {kept[name]:7.1f} MiB ({smaller:.1f}x)"
        )


if __name__ == "__main__":
    main()
