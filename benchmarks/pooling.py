"""Time max-pooling over groups, forward and backward, with each backend of `group_max` and with torch.max.

python benchmarks/pooling.py [--clouds 32] [--groups 256] [--neighbors 24] [--channels 64] [--rounds 7]

All have to give the same maxima, which is checked first. They run in interleaved rounds, and medians are printed. Half
of the inputs are zero, as after a ReLU.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from pages import interleaved

from bixt3d.ops import available_backends, group_max
from bixt3d.training.allocator import keep_freed_memory


def compare(shape: tuple[int, int, int, int], dtype: torch.dtype, rounds: int) -> None:
    """Print the medians of every implementation for one dtype."""
    clouds, groups, _, channels = shape
    grouped = torch.randn(shape).relu().to(dtype).requires_grad_()
    grad = torch.randn(clouds, groups, channels).to(dtype)

    ways = {"torch.max": lambda: grouped.max(dim=2).values}
    for name, reason in available_backends("group_max", grouped).items():
        if reason is None:
            ways[f"bixt3d {name}"] = partial(group_max, grouped, backend=name)
    for name, way in ways.items():
        assert torch.equal(way(), grouped.amax(dim=2)), name
    backwards = [
        partial(torch.autograd.grad, way(), grouped, grad, retain_graph=True) for way in ways.values()
    ]
    there, back = (interleaved(runs, rounds, "cpu") for runs in (list(ways.values()), backwards))
    for name, forward, backward in zip(ways, there, back, strict=True):
        print(f"{dtype}  {name:<20} forward {forward:8.2f} ms   backward {backward:8.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in (("clouds", 32), ("groups", 256), ("neighbors", 24), ("channels", 64), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=size)
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    shape = (options.clouds, options.groups, options.neighbors, options.channels)
    for dtype in (torch.float32, torch.bfloat16):
        compare(shape, dtype, options.rounds)


if __name__ == "__main__":
    main()
