"""Load the compiled library of the CPU backend, or report why it cannot be loaded."""

import ctypes
import functools
import os
from pathlib import Path

from .tracing import constant_when_traced

PATH = Path(__file__).with_name("_cpu.so")
INTERFACE = 7  # bixt3d_interface() in csrc/api.cpp
IMPORTED_IN = os.getpid()

# Argument types of the functions, one letter each: pointer, int64, float, int. Those that compute take the number of
# threads and the instruction set last.
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "f": ctypes.c_float, "i": ctypes.c_int}
_ARGUMENTS = {
    "bixt3d_interface": "",
    "bixt3d_level": "",
    "bixt3d_pool_of": "l",
    "bixt3d_farthest_point_sample": "plllppii",
    "bixt3d_knn": "pplllllppii",
    "bixt3d_ball_query": "pplllflpii",
    "bixt3d_gather": "plllplpii",
    "bixt3d_interpolate": "plllpplipii",
    "bixt3d_scatter": "plllppplilpii",
    "bixt3d_neighbors": "plllpllippii",
    "bixt3d_group_max": "plllippii",
    "bixt3d_group_place": "pplllipii",
    "bixt3d_attention": "pppfipii",
    "bixt3d_attention_backward": "pppfipii",
    "bixt3d_attention_of_stream": "pppfpplfii",
    "bixt3d_residual_mlp": "ppfpii",
    "bixt3d_residual_mlp_backward": "ppfppii",
}


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str | None]:
    """Return the library and None, or None and the reason why there is none, as a clause."""
    if not PATH.exists():
        return None, (
            "was not compiled when bixt3d was installed; install a wheel, or a C++ compiler "
            "(GCC or Clang) and bixt3d again"
        )
    try:
        library = ctypes.CDLL(str(PATH))
        for name, letters in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = [_TYPES[x] for x in letters], ctypes.c_int
    except (OSError, AttributeError) as error:
        return None, f"cannot be loaded ({error}); install bixt3d again"
    if library.bixt3d_interface() != INTERFACE:
        return None, "was compiled for another version of bixt3d; install bixt3d again"
    # A process that was forked after the import does not have the threads of torch's pool.
    library.bixt3d_pool_of(IMPORTED_IN)
    return library, None


@constant_when_traced
def why_not() -> str | None:
    """Return the reason why there is no library, as a clause, or None."""
    return load()[1]
