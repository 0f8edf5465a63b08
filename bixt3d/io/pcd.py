"""Files of the Point Cloud Library (.pcd)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bixt3d.io.cloud import Cloud, unit_normals
from bixt3d.io.damage import damaged


def read_pcd(path: Path) -> Cloud:
    """Read an ascii, binary or binary_compressed file; fields ``normal_x`` ... become normals."""
    try:
        from pypcd4 import PointCloud
    except ImportError as error:
        raise ImportError("Reading .pcd files needs pypcd4: pip install pypcd4") from error
    try:
        cloud = PointCloud.from_path(path)
    except Exception as error:
        raise damaged(path, "PCD", error) from error
    missing = {"x", "y", "z"} - set(cloud.fields)
    if missing:
        raise ValueError(f"{path}: expected fields x, y and z, got {', '.join(cloud.fields)}.")
    points = _columns(cloud, ("x", "y", "z"))
    if len(points) != cloud.metadata.points:
        raise RuntimeError(
            f"{path}: expected {cloud.metadata.points} points by its header, got {len(points)}; "
            "it may be truncated."
        )
    normals = None
    if {"normal_x", "normal_y", "normal_z"} <= set(cloud.fields):
        normals = unit_normals(_columns(cloud, ("normal_x", "normal_y", "normal_z")))
    return Cloud(path, points, normals)


def _columns(cloud, fields: tuple[str, ...]) -> np.ndarray:
    return np.stack([cloud.pc_data[field].astype(np.float64).reshape(-1) for field in fields], axis=1)
