"""Whether Triton kernels can run: the one place that looks for the package, the device and the interpreter."""

import importlib.util
import os
import sys
from typing import Any

import torch
from torch import Tensor

from .. import checks
from .tracing import constant_when_traced

# Programs that keep one multiprocessor busy; the interpreter has none to fill, and a handful lets the tests
# reach the code that joins the parts.
PROGRAMS_PER_MULTIPROCESSOR = 4
INTERPRETER_PROGRAMS = 6


@constant_when_traced
def interpreted() -> bool:
    """Tell whether ``TRITON_INTERPRET`` asks for kernels to be run by numpy, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


@constant_when_traced
def _missing(device: torch.device | None) -> str | None:
    """Return what the machine, or this CUDA device of it, lacks, or None."""
    # A module that was loaded is there, and asking for it is a thousand times cheaper than searching.
    if "triton" not in sys.modules and importlib.util.find_spec("triton") is None:
        return "needs the package triton, which is not installed (pip install triton)"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "needs a CUDA device, and torch finds none (TRITON_INTERPRET=1 runs it slowly on the CPU)"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "needs a GPU of compute capability 8.0 or newer"
    return None


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why a kernel cannot run on these tensors, or without any on this machine."""
    device = next((x.device for x in checks.tensors_among(inputs, options)), None)
    if device is not None and device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"needs tensors on a CUDA device, got {device.type}"
    return _missing(device)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launch ``kernel`` on the device of its first argument; by itself it would run on the current one."""
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **options)


def readable(x: Tensor) -> Tensor:
    """Return ``x``, in float32 if it is bfloat16 on the CPU.

    The interpreter keeps bfloat16 as bare bits: it cuts instead of rounding and multiplies the bits as integers.
    """
    return x.float() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x


def programs_to_fill(device: torch.device) -> int:
    """Return how many programs a launch needs at least to keep the whole device busy."""
    if device.type != "cuda":
        return INTERPRETER_PROGRAMS
    return PROGRAMS_PER_MULTIPROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count


def multiplies_from_shared_memory(device: torch.device) -> bool:
    """Tell whether tensor cores read tiles out of shared memory and leave the registers to results."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] in (9, 10)


def power_of_2(n: int, at_least: int = 1) -> int:
    """Return the smallest power of two that is neither below ``n`` nor below ``at_least``."""
    return max(at_least, 1 << max(0, n - 1).bit_length())


def ceil_div(n: int, d: int) -> int:
    """Return the number of blocks of ``d`` that cover ``n``."""
    return -(-n // d)
