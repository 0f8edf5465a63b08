"""Render scenes with open3d to a picture, without a display; the camera is shared with the window."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..io.writing import atomic_file
from .scene import Scene

# shared libraries that open3d loads, and the Debian or Ubuntu packages that contain them
_PACKAGES = {
    "libEGL": "libegl1",
    "libGL": "libgl1",
    "libX11": "libx11-6",
    "libgomp": "libgomp1",
    "libidn2": "libidn2-0",
    "libudev": "libudev1",
    "libusb": "libusb-1.0-0",
}
FRONT = (0.55, 0.4, 0.75)  # from the object towards the camera; y is up
MARGIN = 0.92  # fraction of the picture's width that the cloud may fill


def save_png(path: str | os.PathLike[str], scenes: Sequence[Scene], *, size: int = 360) -> None:
    """Render scenes into one picture, with the views of each side by side. Needs no display.

    Args:
        path: the ``.png`` file.
        scenes: one or more scenes. With four or more, each row has two.
        size: width and height of one view, in pixels.

    Raises:
        ImportError: open3d is not installed, or lacks a system library; the message names the package.
        RuntimeError: no renderer could be started.
    """
    from matplotlib.figure import Figure

    images = render(scenes, size=size)
    views = max(len(scene.views) for scene in scenes)
    abreast = 1 if len(scenes) < 4 else 2
    rows = -(-len(scenes) // abreast)
    lines = max(len(view.legend) for scene in scenes for view in scene.views)
    dpi = 100
    inches = size / dpi
    below = 0.22 + 0.17 * lines  # height of the legend below a view
    figure = Figure(figsize=(views * abreast * inches, rows * (inches + below + 0.35)), dpi=dpi)
    width, height = figure.get_size_inches()
    for i, (scene, drawn) in enumerate(zip(scenes, images, strict=True)):
        row, column = divmod(i, abreast)
        top = height - row * (inches + below + 0.35)
        left = column * views * inches
        # a file name may contain bytes that are not valid UTF-8, and dollar signs that are not formulas
        name = scene.name.encode("utf-8", "backslashreplace").decode("utf-8")
        at = ((left + 0.1) / width, (top - 0.16) / height)
        figure.text(*at, name, fontsize=9, va="center", parse_math=False)
        for j, (view, image) in enumerate(zip(scene.views, drawn, strict=True)):
            x, y = left + j * inches, top - 0.3 - inches
            axes = figure.add_axes((x / width, y / height, inches / width, inches / height))
            axes.imshow(image)
            axes.set_axis_off()
            figure.text(
                (x + 0.1) / width, (y - 0.08) / height, view.title, fontsize=9, weight="bold", va="top"
            )
            for k, entry in enumerate(view.legend):
                row_at = (y - 0.32 - 0.17 * k) / height
                color = tuple(channel / 255 for channel in entry.color)
                figure.text(
                    (x + 0.1) / width, row_at, "\N{BLACK SQUARE}", fontsize=10, color=color, va="center"
                )
                figure.text((x + 0.27) / width, row_at, entry.text, fontsize=8, va="center")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, facecolor="white")


def render(scenes: Sequence[Scene], *, size: int = 360) -> list[list[np.ndarray]]:
    """Render every view of every scene off screen to arrays ``(size, size, 3)`` uint8 on a white background."""
    o3d = import_open3d()
    scale = 2  # rendered larger, then averaged, since open3d draws points as hard-edged squares
    images = []
    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        visualizer = o3d.visualization.Visualizer()
        if not visualizer.create_window(width=scale * size, height=scale * size, visible=False):
            raise RuntimeError(
                "open3d could not start a renderer, neither on a display nor without one; on Debian or Ubuntu: "
                "apt-get install libegl1 libgl1 libgl1-mesa-dri."
            )
        try:
            for scene in scenes:
                drawn = []
                for view in scene.views:
                    visualizer.clear_geometries()
                    visualizer.add_geometry(point_cloud(o3d, scene.points, view.colors))
                    visualizer.get_render_option().point_size = point_size(len(scene.points), scale * size)
                    aim(visualizer.get_view_control(), scene.points)
                    image = np.asarray(visualizer.capture_screen_float_buffer(do_render=True))
                    image = image.reshape(size, scale, size, scale, 3).mean(axis=(1, 3))
                    drawn.append((255 * image).round().astype(np.uint8))
                images.append(drawn)
        finally:
            visualizer.destroy_window()
    return images


def import_open3d() -> Any:
    """Import open3d, or raise an ImportError that says what is missing."""
    try:
        import open3d
    except ImportError as error:
        raise ImportError(
            "Pictures and the window need open3d: pip install open3d (or the smaller open3d-cpu). "
            f"({str(error).splitlines()[0]})"
        ) from error
    except OSError as error:  # open3d is installed, but a shared library that it links to is missing
        missing = str(error).partition(":")[0]
        package = next((p for name, p in _PACKAGES.items() if missing.startswith(name)), missing)
        raise ImportError(
            f"open3d cannot load {missing}; on Debian or Ubuntu: apt-get install {package} (all that open3d needs: "
            f"{' '.join(sorted(set(_PACKAGES.values())))})."
        ) from error
    return open3d


def check_display() -> None:
    """Raise an error if no window can be opened, since open3d may crash without a display.

    Raises:
        RuntimeError: there is no display, or it does not respond.
        ImportError: libX11 is not installed.
    """
    remedy = (
        "save a picture with --save FILE.png, or a page for any browser with --save FILE.html; over ssh, a window "
        "needs 'ssh -X' and a display on your side"
    )
    if sys.platform != "linux":
        if "SSH_CONNECTION" in os.environ:
            raise RuntimeError(f"no window can be opened over ssh; {remedy}.")
        return
    name = os.environ.get("DISPLAY")
    if not name:
        if os.environ.get("WAYLAND_DISPLAY"):
            return
        raise RuntimeError(f"there is no display to open a window on (DISPLAY is not set); {remedy}.")
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError as error:
        raise ImportError(
            "the window needs libX11.so.6; on Debian or Ubuntu: apt-get install libx11-6."
        ) from error
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XCloseDisplay.argtypes = [ctypes.c_void_p]
    display = x11.XOpenDisplay(None)
    if not display:
        raise RuntimeError(f"the display {name!r} (DISPLAY) does not answer; {remedy}.")
    x11.XCloseDisplay(display)


def point_cloud(o3d: Any, points: np.ndarray, colors: np.ndarray) -> Any:
    """Make an open3d point cloud from points ``(N, 3)`` and colours ``(N, 3)`` uint8."""
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
    cloud.colors = o3d.utility.Vector3dVector(colors.astype(np.float64) / 255)
    return cloud


def point_size(count: int, pixels: int) -> float:
    """Return the point size, in pixels, at which a cloud of ``count`` points looks like a surface."""
    return float(np.clip(0.55 * pixels / np.sqrt(count), 2.0, 14.0))


def aim(control: Any, points: np.ndarray) -> None:
    """Point the camera at the cloud from the front, slightly right and above, as close as shows all points.

    Args:
        control: open3d's view control, whose bounding box is that of the points.
        points: ``(N, 3)``, y up.
    """
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    front = np.array(FRONT) / np.linalg.norm(FRONT)
    # open3d uses both vectors as they are: an up that is not orthogonal to the front would shear the picture
    up = np.array((0.0, 1.0, 0.0)) - front[1] * front
    up /= np.linalg.norm(up)
    control.set_lookat((low + high) / 2)
    control.set_front(front)
    control.set_up(up)
    # a point is visible if its distance from the axis is at most tan(fov / 2) times its depth
    seen = (points - (low + high) / 2) @ np.stack([np.cross(up, front), up, front], axis=1)
    slope = np.tan(np.radians(control.get_field_of_view()) / 2)
    distance = (np.abs(seen[:, :2]).max(axis=1) / (MARGIN * slope) + seen[:, 2]).max()
    control.set_zoom(distance * slope / max(float((high - low).max()), 1e-6))


def screenshot_name(folder: Path, scene: Scene, title: str) -> Path:
    """Return an unused file name in ``folder``, made of the names of the scene and its view."""
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{scene.name}_{title}").strip("._")
    path = folder / f"{stem}.png"
    number = 2
    while path.exists():
        path = folder / f"{stem}_{number}.png"
        number += 1
    return path
