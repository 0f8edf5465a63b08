"""Load the compiled library of the CPU backend and say why it cannot be loaded."""

import ctypes
import functools
import os
from pathlib import Path

from .tracing import constant_when_traced

PATH = Path(__file__).with_name("_cpu.so")
INTERFACE = 7  # bixt3d_interface() in csrc/api.cpp
IMPORTED_IN = os.getpid()

_pointer, _long, _int = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_ATTENTION = [_pointer, _pointer, _pointer, ctypes.c_float, _int, _pointer, _int, _int]
_ARGUMENTS = {
    "bixt3d_interface": [],
    "bixt3d_level": [],
    "bixt3d_pool_of": [_long],
    "bixt3d_farthest_point_sample": [_pointer, _long, _long, _long, _pointer, _pointer, _int, _int],
    "bixt3d_knn": [_pointer, _pointer, _long, _long, _long, _long, _long, _pointer, _pointer, _int, _int],
    "bixt3d_ball_query": [
        *(_pointer, _pointer, _long, _long, _long, ctypes.c_float, _long, _pointer, _int, _int)
    ],
    "bixt3d_gather": [_pointer, _long, _long, _long, _pointer, _long, _pointer, _int, _int],
    "bixt3d_interpolate": [
        *(_pointer, _long, _long, _long, _pointer, _pointer, _long, _int, _pointer, _int, _int)
    ],
    "bixt3d_scatter": [
        *(
            _pointer,
            _long,
            _long,
            _long,
            _pointer,
            _pointer,
            _pointer,
            _long,
            _int,
            _long,
            _pointer,
            _int,
            _int,
        )
    ],
    "bixt3d_neighbors": [
        *(_pointer, _long, _long, _long, _pointer, _long, _long, _int, _pointer, _pointer, _int, _int)
    ],
    "bixt3d_group_max": [_pointer, _long, _long, _long, _int, _pointer, _pointer, _int, _int],
    "bixt3d_group_place": [_pointer, _pointer, _long, _long, _long, _int, _pointer, _int, _int],
    "bixt3d_attention": _ATTENTION,
    "bixt3d_attention_backward": _ATTENTION,
    "bixt3d_attention_of_stream": [
        *(_pointer, _pointer, _pointer, ctypes.c_float, _pointer, _pointer, _long, ctypes.c_float, _int, _int)
    ],
    "bixt3d_residual_mlp": [_pointer, _pointer, ctypes.c_float, _pointer, _int, _int],
    "bixt3d_residual_mlp_backward": [_pointer, _pointer, ctypes.c_float, _pointer, _pointer, _int, _int],
}


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str | None]:
    """Return the library and None, or None and the reason why there is none, a clause."""
    if not PATH.exists():
        return None, (
            "was not compiled when bixt3d was installed; install a wheel, or a C++ compiler "
            "(GCC or Clang) and bixt3d again"
        )
    try:
        library = ctypes.CDLL(str(PATH))
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _int
    except (OSError, AttributeError) as error:
        return None, f"cannot be loaded ({error}); install bixt3d again"
    if library.bixt3d_interface() != INTERFACE:
        return None, "was compiled for another version of bixt3d; install bixt3d again"
    # A process that was forked since the import has none of the threads of torch's pool.
    library.bixt3d_pool_of(IMPORTED_IN)
    return library, None


@constant_when_traced
def why_not() -> str | None:
    """Return the reason why there is no library, a clause, or None."""
    return load()[1]
