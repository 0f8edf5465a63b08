"""Worker process for one row of the model benchmark, started by benchmarks/models.py.

It builds the model, runs it a few times, prints the peak memory of a run, and then times one run for every line that it
reads from stdin.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from model_cases import MATRIX, SQUARES, Row, inputs, make_model

from bixt3d.inference.compiled import compile_for_prediction
from bixt3d.training.allocator import keep_freed_memory


def multiply_squares(width: int, times: int, device: str, dtype: torch.dtype) -> Callable[[], None]:
    square = torch.randn(width, width).to(device, dtype)

    def multiply() -> None:
        for _ in range(times):
            square @ square

    return multiply


def make_run(row: Row, device: str, compile_mode: str) -> Callable[[], None]:
    torch.manual_seed(0)
    if row.model == MATRIX:
        dtype = torch.bfloat16 if row.precision == "bf16" else torch.float32
        return multiply_squares(*SQUARES[device], device, dtype)
    model = make_model(row).to(device).train(row.work == "training")
    given = inputs(row, model, device)
    if row.precision == "int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of torchao
            quantize = torch.ao.quantization.quantize_dynamic
            # only the blocks: tokeniser and grouping access the weights of their linear maps
            model.encoder.blocks = quantize(model.encoder.blocks, {torch.nn.Linear}, dtype=torch.qint8)
    run = model
    if row.how == "compiled":
        for_training = row.work == "training" or compile_mode != "default"
        run = (
            torch.compile(model, dynamic=True, mode=compile_mode)
            if for_training
            else compile_for_prediction(model)
        )
    half = torch.autocast(device, torch.bfloat16, enabled=row.precision == "bf16")

    def infer() -> None:
        with torch.inference_mode(), half:
            run(*given)

    if row.work == "inference":
        return infer
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    shape = given[0].shape[:2] if len(given) == 2 else given[0].shape[:1]
    target = torch.zeros(shape, dtype=torch.int64, device=device)

    def train() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with half:
            logits = run(*given)
        F.cross_entropy(logits.float().flatten(0, -2), target.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def peak_mib(run: Callable[[], None], device: str) -> float | None:
    """Return by how much memory rises during a run, in MiB, or None if the system does not report it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status = Path("/proc/self/status")
    if not status.exists():
        return None

    def resident(name: str) -> int:
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith(name))

    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept would hide what a run needs
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    run()
    return (resident("VmHWM") - before) / 1024


def main() -> None:
    options = json.loads(sys.argv[1])
    device = options["device"]
    if not options["default_allocator"]:
        keep_freed_memory()
    run = make_run(Row(**options["row"]), device, options["compile_mode"])
    run()  # compiles, loads libraries, starts threads
    peak = peak_mib(run, device)
    run()
    print(json.dumps({"peak_mib": peak}), flush=True)
    for _ in sys.stdin:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
