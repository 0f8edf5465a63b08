"""Draw scenes with open3d: to a picture without a display, or in a window."""

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

# the shared libraries that open3d loads, and the Debian or Ubuntu packages that bring them
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
MARGIN = 0.92  # share of the picture's width that the cloud may take


def save_png(path: str | os.PathLike[str], scenes: Sequence[Scene], *, size: int = 360) -> None:
    """Render scenes into one picture, the views of each side by side; needs no display.

    Args:
        path: the ``.png`` file.
        scenes: one or more; from the fourth on, two share a row.
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
    below = 0.22 + 0.17 * lines  # of a view: its legend
    figure = Figure(figsize=(views * abreast * inches, rows * (inches + below + 0.35)), dpi=dpi)
    width, height = figure.get_size_inches()
    for i, (scene, drawn) in enumerate(zip(scenes, images, strict=True)):
        row, column = divmod(i, abreast)
        top = height - row * (inches + below + 0.35)
        left = column * views * inches
        # a file name may hold bytes that are no text, and dollars that start no formula
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
    """Render every view of every scene off screen: arrays ``(size, size, 3)`` uint8, white background."""
    o3d = import_open3d()
    scale = 2  # drawn larger, then averaged, since open3d's points are hard-edged squares
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
    """Import open3d, or say in one sentence what it lacks."""
    try:
        import open3d
    except ImportError as error:
        raise ImportError(
            "Pictures and the window need open3d: pip install open3d (or the smaller open3d-cpu). "
            f"({str(error).splitlines()[0]})"
        ) from error
    except OSError as error:  # the wheel is there, a shared library that it links to is not
        missing = str(error).partition(":")[0]
        package = next((p for name, p in _PACKAGES.items() if missing.startswith(name)), missing)
        raise ImportError(
            f"open3d cannot load {missing}; on Debian or Ubuntu: apt-get install {package} (all that open3d needs: "
            f"{' '.join(sorted(set(_PACKAGES.values())))})."
        ) from error
    return open3d


def check_display() -> None:
    """Raise where no window can be opened, before anything that would crash there is called.

    Raises:
        RuntimeError: there is no display, or it does not answer; the message says what to do.
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
    """Make open3d's cloud of points ``(N, 3)`` and colours ``(N, 3)`` uint8."""
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
    cloud.colors = o3d.utility.Vector3dVector(colors.astype(np.float64) / 255)
    return cloud


def point_size(count: int, pixels: int) -> float:
    """Return a size of points, in pixels, at which a cloud of ``count`` looks like a surface."""
    return float(np.clip(0.55 * pixels / np.sqrt(count), 2.0, 14.0))


def aim(control: Any, points: np.ndarray) -> None:
    """Look from in front, a little from the right and above, as near as shows all points.

    Args:
        control: open3d's view control, with its bounding box set to that of the points.
        points: ``(N, 3)``, y up.
    """
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    front = np.array(FRONT) / np.linalg.norm(FRONT)
    # open3d takes the two as they are: an up that is not at right angles to the front would shear the picture
    up = np.array((0.0, 1.0, 0.0)) - front[1] * front
    up /= np.linalg.norm(up)
    control.set_lookat((low + high) / 2)
    control.set_front(front)
    control.set_up(up)
    # a point is in the picture if its distance from the axis is at most tan(fov / 2) times its depth
    seen = (points - (low + high) / 2) @ np.stack([np.cross(up, front), up, front], axis=1)
    slope = np.tan(np.radians(control.get_field_of_view()) / 2)
    distance = (np.abs(seen[:, :2]).max(axis=1) / (MARGIN * slope) + seen[:, 2]).max()
    control.set_zoom(distance * slope / max(float((high - low).max()), 1e-6))


def screenshot_name(folder: Path, scene: Scene, title: str) -> Path:
    """Return a file name in ``folder`` that is not taken, made of the scene and its view."""
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{scene.name}_{title}").strip("._")
    path = folder / f"{stem}.png"
    number = 2
    while path.exists():
        path = folder / f"{stem}_{number}.png"
        number += 1
    return path
