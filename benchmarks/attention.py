"""Time bi-directional attention with every backend that can run, and write docs/benchmarks.md.

python benchmarks/attention.py [--device cpu] [--rounds 7] [--sizes 16x1024 1x65536] [--precision fp32 bf16]

First, the results and gradients of each backend are compared with float64 on the same inputs. The benchmark stops if an
error is more than twice that of the reference. Then all backends run in interleaved rounds, each right after an untimed
run of its own, forward only and forward with backward. The table has medians, and ratios to the time of the first
backend. "reference" is a direct implementation of the authors' formulation: one similarity matrix, two softmaxes and
two products. "sdpa" calls torch's fused attention twice. All use the allocator setting of the training scripts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from model_worker import peak_mib
from pages import PAGE, interleaved, origin, write
from torch import Tensor

from bixt3d.ops import available_backends, bidirectional_attention
from bixt3d.training.allocator import keep_freed_memory

NAMES = ("latent_ref", "latent_val", "token_ref", "token_val")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LATENTS, HEADS, WIDTH = 64, 6, 32


def inputs(clouds: int, tokens: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Draw references and values in the memory layout of a linear map's output, with adjacent heads."""
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for rows in (LATENTS, tokens):
        both = torch.randn(clouds, rows, 2, HEADS, WIDTH, generator=generator).to(device, dtype)
        drawn += [x.requires_grad_() for x in both.permute(2, 0, 3, 1, 4).detach().unbind(0)]
    return drawn


def weights(args: list[Tensor]) -> list[Tensor]:
    """Draw a gradient for each result. All widths are the same."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(x.shape, generator=generator).to(x) for x in (args[0], args[2])]


def errors(args: list[Tensor], backend: str, exact: list[Tensor]) -> dict[str, float]:
    out = bidirectional_attention(*args, backend=backend)
    got = (*out, *torch.autograd.grad(out, args, weights(args)))
    names = ("latents", "tokens", *(f"gradient of {name}" for name in NAMES))
    return {
        name: ((x.double() - y).abs().max() / y.abs().max()).item()
        for name, x, y in zip(names, got, exact, strict=True)
    }


def verify(args: list[Tensor], backends: list[str]) -> dict[str, float]:
    """Return the largest error of each backend, and exit if one has more than twice the error of the reference."""
    wide = [x.detach().double().requires_grad_() for x in args]
    out = bidirectional_attention(*wide, backend="reference")
    exact = [x.detach() for x in (*out, *torch.autograd.grad(out, wide, [w.double() for w in weights(args)]))]
    allowed = errors(args, "reference", exact)
    largest = {}
    for backend in backends:
        found = errors(args, backend, exact)
        for name, error in found.items():
            if error > 2 * allowed[name] + 4 * torch.finfo(args[0].dtype).eps:
                sys.exit(
                    f"backend {backend!r}: the error of {name} is {error:.1e}, expected at most about twice "
                    f"that of the reference, {allowed[name]:.1e}"
                )
        largest[backend] = max(found.values())
    return largest


def runs(args: list[Tensor], backend: str) -> tuple[Callable[[], None], Callable[[], None]]:
    gradients = weights(args)

    def forward() -> None:
        with torch.no_grad():
            bidirectional_attention(*args, backend=backend)

    def both() -> None:
        torch.autograd.grad(bidirectional_attention(*args, backend=backend), args, gradients)

    return forward, both


def table(clouds: int, tokens: int, precision: str, options: argparse.Namespace) -> list[str]:
    args = inputs(clouds, tokens, DTYPES[precision], options.device)
    available = available_backends("bidirectional_attention", *args)
    backends = [name for name, reason in available.items() if reason is None]
    exact = verify(args, backends)
    pairs = [runs(args, backend) for backend in backends]
    peaks = [[peak_mib(run, options.device) for run in pair] for pair in pairs]
    forward = interleaved([pair[0] for pair in pairs], options.rounds, options.device)
    both = interleaved([pair[1] for pair in pairs], options.rounds, options.device)
    lines = [
        f"**{clouds} x {tokens:,} tokens, {LATENTS} latents, {HEADS} heads of {WIDTH}, {precision}**",
        "",
        "| backend | forward, ms | ratio | forward and backward, ms | ratio | peak memory, MiB | largest error |",
        "|---|---|---|---|---|---|---|",
    ]
    for backend, f, b, peak in zip(backends, forward, both, peaks, strict=True):
        lines.append(
            f"| `{backend}` | {f:.3g} | {f / forward[0]:.2f} | {b:.3g} | {b / both[0]:.2f} | "
            f"{' / '.join('not measured' if p is None else f'{p:.0f}' for p in peak)} | {exact[backend]:.1e} |"
        )
    return [*lines, ""]


def size(text: str) -> tuple[int, int]:
    clouds, _, tokens = text.partition("x")
    return int(clouds), int(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default: 7)")
    parser.add_argument(
        "--sizes",
        type=size,
        nargs="+",
        default=[(16, 1024), (1, 65536)],
        metavar="BxN",
        help="clouds x tokens (default: 16x1024 1x65536)",
    )
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--no-write", action="store_true", help="only print the results")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write (default: docs/benchmarks.md)")
    options = parser.parse_args()
    keep_freed_memory()
    lines: list[str] = []
    for clouds, tokens in options.sizes:
        for precision in options.precision:
            lines += table(clouds, tokens, precision, options)
            print("\n".join(lines[-6:]), flush=True)
    if options.no_write:
        return
    head = (
        f"{origin('attention.py', options.device)} Medians of {options.rounds} interleaved rounds. Ratios are "
        "times as multiples of the first backend's. Peak memory is what a forward pass, and one with backward, adds to "
        "the memory in use before it. The error is the largest of results and gradients against float64, relative to "
        "the largest number of each."
    )
    write("attention", "Bi-directional attention", "\n".join(["", head, "", *lines]), options.page)


if __name__ == "__main__":
    main()
