"""Keep the C library from returning the memory of large tensors to the kernel after every use."""

from __future__ import annotations

import ctypes
import sys

# glibc's malloc.h; the values have never changed
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 1 GiB for the next allocation of this process.

    By default glibc maps memory anew for every large tensor and unmaps it when the tensor is freed, so each use pays
    for its page faults again. A training step on the CPU can spend most of its time on them. The price is that freed
    memory stays with the process. The setting applies to the whole process, so it is never made on import, but at
    the start of programs and by training or evaluation from a config with ``train.keep_freed_memory``.

    Returns:
        Whether the setting was made, which needs Linux with glibc. Elsewhere nothing changes.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version") or not hasattr(libc, "mallopt"):
        return False
    kept = libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    return bool(kept and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
