"""Estimate the normals of clouds that have none."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from ..io import Cloud, unit_sphere

logger = logging.getLogger(__name__)

NEIGHBORS = 16


def normals_of(cloud: Cloud) -> np.ndarray:
    """Return the normals ``(N, 3)`` of a cloud. If it has none, warn and estimate them."""
    if cloud.normals is not None:
        return cloud.normals
    found = estimate_normals(unit_sphere(cloud.points), cloud.path)
    logger.warning("%s: has no normals; they were estimated from neighbouring points", cloud.path)
    return found


def estimate_normals(points: np.ndarray, where: Any = "points") -> np.ndarray:
    """Estimate unit normals as the direction of least variance of the 16 nearest points.

    Normals are oriented away from the centroid, which is right for most of a convex surface and a guess inside a hollow
    one. Prefer the normals of the file if it has any.

    Args:
        points: ``(N, 3)`` real.
        where: name of the cloud in error messages.

    Returns:
        ``(N, 3)`` float64; ``(0, 1, 0)`` for points whose neighbours define no direction.

    Raises:
        ImportError: open3d is not installed.
    """
    try:
        import open3d
    except (ImportError, OSError) as error:
        how = "pip install open3d (or the smaller open3d-cpu)"
        if not isinstance(error, ImportError):
            how = f"open3d cannot be loaded, {error}"
        raise ImportError(
            f"{where}: the model takes normals and the cloud has none; give a file with normals, or let them be "
            f"estimated: {how}"
        ) from error
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(np.asarray(points, np.float64)))
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(NEIGHBORS))
    normals = np.asarray(cloud.normals).copy()
    outward = np.asarray(points, np.float64) - np.asarray(points, np.float64).mean(axis=0)
    normals[(normals * outward).sum(axis=1) < 0] *= -1
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    usable = np.isfinite(length) & (length > 0.5)
    return np.where(usable, normals / np.where(usable, length, 1.0), (0.0, 1.0, 0.0))
