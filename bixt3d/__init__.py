"""bixt3d: bi-directional cross-attention transformers (BiXT) for point clouds.

Importing the package is free: no data set reader, viewer, configuration or compiler library is loaded
until something needs it.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name == "load":  # brings torch, which importing the package does not
        from .loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
