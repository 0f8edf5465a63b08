"""Time every op with every backend and with other installed packages, and write docs/benchmarks.md.

python benchmarks/ops.py [--ops knn ...] [--device cpu] [--clock wall] [--rounds 7] [--quick] [--no-write]

First, the result of every backend has to equal that of the torch backend, else the benchmark stops. Then all
contenders of a case run in interleaved rounds, so that other load on the machine affects all of them alike, and the
table holds medians. Each is timed right after an untimed run of its own, with its threads awake and its inputs in the
cache, as in a loop. Other packages get the same inputs and the same task. The table shows how much of their result
agrees, since some sample approximately, and some compute distances as a² + b² - 2ab. On a busy machine, use
OMP_NUM_THREADS=1 and ``--clock cpu``: the processor time of one thread depends little on other load.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from ops_cases import Case, cases
from ops_contenders import Contender, answer, contenders, expected, left_out
from pages import PAGE, interleaved, origin, write
from torch import Tensor

from bixt3d.training.allocator import keep_freed_memory

PLOT = "benchmarks_ops.svg"


def agreement(got: Tensor, wanted: Tensor) -> float | None:
    """Return the share of indices or distances that agree, or None if the results are not comparable."""
    if got.shape != wanted.shape:
        return None
    if wanted.is_floating_point():
        return torch.isclose(got.to(wanted), wanted, rtol=1e-4, atol=1e-6).double().mean().item()
    if got.ndim > 2:
        return (got == wanted).double().mean().item()
    common = [len(set(a) & set(b)) / len(set(b)) for a, b in zip(got.tolist(), wanted.tolist(), strict=True)]
    return statistics.mean(common)


def _equal(got: Any, wanted: Any) -> bool:
    if isinstance(got, Tensor):
        return torch.equal(got, wanted)
    return all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


def verify(case: Case, wanted: Any, contender: Contender) -> float | None:
    """Run once, also to warm up, and return the agreement. Exit if a backend of the toolkit does not agree exactly."""
    got = contender.run()
    if contender.ours and not _equal(got, wanted):
        sys.exit(
            f"{case.op} on {case.label}: backend {contender.name!r} disagrees with 'torch'; nothing is timed"
        )
    return agreement(contender.answer(got), answer(case)(wanted))


Row = tuple[str, bool, float, float | None]  # name, ours, milliseconds, agreement


def table(case: Case, rows: list[Row]) -> list[str]:
    best = min(milliseconds for _, ours, milliseconds, _ in rows if ours)
    lines = [
        f"**{case.op}, {case.label}**",
        "",
        "| | ms | against our fastest | agrees |",
        "|---|---|---|---|",
    ]
    for name, ours, milliseconds, agrees in rows:
        shown = f"bixt3d `{name}`" if ours else name
        share = "other contract" if agrees is None else f"{100 * agrees:.4g} %"
        lines.append(f"| {shown} | {milliseconds:.3g} | {milliseconds / best:.1f} | {share} |")
    lines += [f"| {name} | not run: too slow | | |" for name in left_out(case)]
    return [*lines, ""]


def plot(results: list[tuple[Case, list[Row]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heights = [len(rows) for _, rows in results]
    figure, axes = plt.subplots(
        len(results),
        figsize=(8, 0.26 * sum(heights) + 0.75 * len(results)),
        height_ratios=heights,
        squeeze=False,
    )
    for ax, (case, rows) in zip(axes[:, 0], results, strict=True):
        names = [f"bixt3d {name}" if ours else name for name, ours, _, _ in rows]
        colors = ["#1f6f8b" if ours else "#b8b8b8" for _, ours, _, _ in rows]
        bars = ax.barh(names, [milliseconds for _, _, milliseconds, _ in rows], color=colors)
        ax.bar_label(bars, fmt="%.3g ms", padding=3, fontsize=7)
        ax.set_xscale("log")
        ax.margins(x=0.15)
        ax.invert_yaxis()
        ax.tick_params(labelsize=7)
        ax.set_title(f"{case.op}, {case.label}", fontsize=8, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ops", nargs="+", help="ops to time (default: all)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--clock",
        default="wall",
        choices=["wall", "cpu"],
        help="elapsed time, or processor time of all threads (default: wall)",
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default: 7)")
    parser.add_argument("--quick", action="store_true", help="skip the cloud of a million points")
    parser.add_argument("--no-write", action="store_true", help="only print the results")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write (default: docs/benchmarks.md)")
    options = parser.parse_args()
    keep_freed_memory()  # as in the training scripts; otherwise page faults would dominate the cost of copies
    results: list[tuple[Case, list[Row]]] = []
    lines: list[str] = []
    for case in cases(options.device, options.quick):
        if options.ops and case.op not in options.ops:
            continue
        field, wanted = list(contenders(case)), expected(case)
        agrees = [verify(case, wanted, contender) for contender in field]
        medians = interleaved(
            [contender.run for contender in field], options.rounds, options.device, options.clock
        )
        ours = [contender.ours for contender in field]
        rows = list(zip([contender.name for contender in field], ours, medians, agrees, strict=True))
        results.append((case, rows))
        lines += table(case, rows)
        print("\n".join(table(case, rows)), flush=True)
    if options.no_write:
        return
    time_of = "processor time" if options.clock == "cpu" else "elapsed time"
    head = (
        f"{origin('ops.py', options.device)} Medians of up to {options.rounds} interleaved rounds, {time_of}. "
        "The third column is the time as a multiple of our fastest backend's, the last the share of the result that "
        "agrees with the torch backend."
    )
    options.page.parent.mkdir(exist_ok=True)
    plot(results, options.page.parent / PLOT)
    section = ["", head, "", f"![time of each op and package]({PLOT})", "", *lines]
    write("ops", "Ops", "\n".join(section), options.page)


if __name__ == "__main__":
    main()
