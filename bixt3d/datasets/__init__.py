"""Point cloud data sets, transforms and batch loaders."""

from bixt3d.datasets.clouds import PointClouds
from bixt3d.datasets.folder import Folder
from bixt3d.datasets.loader import Batch, CloudLoader
from bixt3d.datasets.modelnet40 import ModelNet40
from bixt3d.datasets.scanobjectnn import ScanObjectNN
from bixt3d.datasets.shapenetpart import ShapeNetPart
from bixt3d.datasets.shapes import Shapes
from bixt3d.datasets.whole import WholeCloudLoader

__all__ = [
    "Batch",
    "CloudLoader",
    "Folder",
    "ModelNet40",
    "PointClouds",
    "ScanObjectNN",
    "ShapeNetPart",
    "Shapes",
    "WholeCloudLoader",
]
