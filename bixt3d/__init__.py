"""bixt3d: bi-directional cross-attention transformers (BiXT) for point clouds.

Importing the package is cheap: torch and the libraries for data sets, viewing, configs and compilation are loaded
only when they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inference.loading import load as load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> object:
    if name == "load":  # imports torch, which importing the package must not
        from .inference.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
