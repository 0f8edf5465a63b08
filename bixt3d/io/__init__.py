"""Read point clouds and meshes from common file formats."""

from bixt3d.io.cloud import Cloud, check_axis, turn_to_y, unit_sphere
from bixt3d.io.labels import LABEL_NAMES, UNLABELLED
from bixt3d.io.reading import FORMATS, read_points

__all__ = [
    "FORMATS",
    "LABEL_NAMES",
    "UNLABELLED",
    "Cloud",
    "check_axis",
    "read_points",
    "turn_to_y",
    "unit_sphere",
]
