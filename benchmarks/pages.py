"""Shared by the benchmarks: timing, the page they write, and a line on the origin of the figures."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def machine(device: str) -> str:
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    if device == "cuda":
        name += f", {torch.cuda.get_device_name()}"
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {threads}{load}, torch {torch.__version__}"


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=PAGE.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def origin(script: str, device: str) -> str:
    """Return a sentence with the command, date, commit and machine."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    command = " ".join(["python", f"benchmarks/{script}", *sys.argv[1:]])
    return f"`{command}`, {today}, commit {commit()}; {machine(device)}."


def write(name: str, heading: str, section: str, page: Path = PAGE) -> None:
    """Write the section between the markers of ``name``. Missing markers are first added at the end of the page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8") if page.exists() else "# Benchmarks\n"
    if begin not in text:
        text += f"\n## {heading}\n\n{begin}\n{end}\n"
    before, rest = text.split(begin)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{begin}\n{section}\n{end}{rest.split(end)[1]}", encoding="utf-8")


SECONDS_EACH = 3.0  # a function that has run this long skips further rounds, after at least three


def interleaved(runs: list[Callable[[], Any]], rounds: int, device: str, clock: str = "wall") -> list[float]:
    """Return medians in ms over interleaved rounds. Each timed run directly follows an untimed one of the same."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            if len(taken) >= 3 and sum(taken) > SECONDS_EACH:
                continue
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            begin = now()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(now() - begin)
    return [1000 * statistics.median(taken) for taken in times]
