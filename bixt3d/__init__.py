"""bixt3d: bi-directional cross-attention transformers (BiXT) for point clouds.

Importing the package is free: no data set reader, viewer, configuration or compiler library is loaded
until something needs it.
"""

__version__ = "0.1.0"
