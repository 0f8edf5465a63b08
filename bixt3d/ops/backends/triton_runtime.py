"""Check whether Triton kernels can run (package, device, interpreter), and launch them."""

import importlib.util
import os
import sys
from typing import Any

import torch
from torch import Tensor

from .. import checks
from .tracing import constant_when_traced

# Programs that keep one multiprocessor busy. The interpreter has none, and a handful lets tests reach the code that
# joins parts.
PROGRAMS_PER_MULTIPROCESSOR = 4
INTERPRETER_PROGRAMS = 6


@constant_when_traced
def interpreted() -> bool:
    """Return whether ``TRITON_INTERPRET`` is set, so that numpy runs the kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


@constant_when_traced
def _missing(device: torch.device | None) -> str | None:
    """Return what this machine or CUDA device lacks, as a clause, or None."""
    # Looking up a loaded module is a thousand times cheaper than searching for the package.
    if "triton" not in sys.modules and importlib.util.find_spec("triton") is None:
        return "needs the package triton, which is not installed (pip install triton)"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "needs a CUDA device, but torch finds none (TRITON_INTERPRET=1 runs it slowly on the CPU)"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "needs a GPU of compute capability 8.0 or newer"
    return None


def why_not(*inputs: Any, **options: Any) -> str | None:
    """Return why a kernel cannot run on these tensors (or on this machine, if none are given), or None."""
    device = next((x.device for x in checks.tensors_among(inputs, options)), None)
    if device is not None and device.type != "cuda" and not (device.type == "cpu" and interpreted()):
        return f"needs tensors on a CUDA device, got {device.type}"
    return _missing(device)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launch ``kernel`` on the device of its first argument. By default Triton uses the current device."""
    with torch.cuda.device_of(args[0]):
        kernel[grid](*args, **options)


def readable(x: Tensor) -> Tensor:
    """Convert bfloat16 tensors on the CPU to float32, and return others unchanged.

    The interpreter stores bfloat16 as raw bits: it truncates instead of rounding and multiplies the bits as integers.
    """
    return x.float() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x


def programs_to_fill(device: torch.device) -> int:
    """Return the least number of programs that keeps the whole device busy."""
    if device.type != "cuda":
        return INTERPRETER_PROGRAMS
    return PROGRAMS_PER_MULTIPROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count


def multiplies_from_shared_memory(device: torch.device) -> bool:
    """Return whether tensor cores read tiles from shared memory, which leaves the registers to results."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] in (9, 10)


def power_of_2(n: int, at_least: int = 1) -> int:
    """Return the smallest power of two that is at least ``n``, or ``at_least`` if that is larger."""
    return max(at_least, 1 << max(0, n - 1).bit_length())


def ceil_div(n: int, d: int) -> int:
    """Return ``n / d``, rounded up."""
    return -(-n // d)
