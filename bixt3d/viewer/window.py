"""Show scenes in a window with keys, a legend and screenshots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .pictures import aim, check_display, import_open3d, point_cloud, point_size, screenshot_name
from .scene import LegendEntry, Scene, View

KEYS = """\
N, right arrow   next shape          1  prediction (or the first view)
P, left arrow    previous shape      2  ground truth (or the second view)
+ / -            point size          3  errors only (or the third view)
S                screenshot          R  look from the front again
drag, wheel      turn, zoom          Q, Esc  close"""
_RIGHT, _LEFT = 262, 263  # GLFW key codes of the arrow keys
_LINE = 19.0  # pixels between lines; open3d's capital letters are 10 units tall, drawn as 10 pixels


class Browser:
    """Keep track of the scene and view on display, independently of the window."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        if not scenes:
            raise ValueError("scenes: got none, expected at least one.")
        self.scenes = list(scenes)
        self.index = 0
        self.view_index = 0

    @property
    def scene(self) -> Scene:
        """The current scene."""
        return self.scenes[self.index]

    @property
    def view(self) -> View:
        """The current view: the chosen one, or the last if the scene has fewer views."""
        return self.scene.views[min(self.view_index, len(self.scene.views) - 1)]

    def step(self, by: int) -> None:
        """Move ``by`` scenes forward, wrapping around at the ends."""
        self.index = (self.index + by) % len(self.scenes)

    def choose(self, view_index: int) -> bool:
        """Switch to a view. Returns False, and changes nothing, if the scene has no such view."""
        if view_index >= len(self.scene.views):
            return False
        self.view_index = view_index
        return True

    def caption(self) -> tuple[LegendEntry, ...]:
        """Return the lines of the caption: name, view title and legend."""
        ink = (40, 40, 40)
        place = f"{self.index + 1}/{len(self.scenes)} {self.scene.name}"
        return (LegendEntry(place, ink), LegendEntry(self.view.title, ink), *self.view.legend)


def show(
    scenes: Sequence[Scene], *, width: int = 1000, height: int = 750, folder: Path | None = None
) -> None:
    """Show scenes in a window and return when it is closed.

    Args:
        scenes: one or more scenes.
        width, height: size of the window, in pixels.
        folder: folder for screenshots; None for the current folder.

    Raises:
        ValueError: ``scenes`` is empty.
        RuntimeError: no window can be opened; the message suggests what to do instead.
        ImportError: open3d is not installed, or lacks a system library.
    """
    check_display()
    _Window(Browser(scenes), import_open3d(), width, height, folder or Path()).run()


class _Window:
    """The open3d window that displays a browser."""

    def __init__(self, browser: Browser, o3d: Any, width: int, height: int, folder: Path) -> None:
        self.browser = browser
        self.o3d = o3d
        self.folder = folder
        self.visualizer = o3d.visualization.VisualizerWithKeyCallback()
        if not self.visualizer.create_window(window_name="bixt3d", width=width, height=height):
            raise RuntimeError(
                "open3d could not open a window on this display (does it lack OpenGL?); save a picture with "
                "--save FILE.png or a page with --save FILE.html."
            )
        self.height = height
        option = self.visualizer.get_render_option()
        option.light_on = False  # without shading, colours match the legend
        option.mesh_show_back_face = True
        self.legend: Any = None
        self.letters = np.zeros((0, 3))  # vertices of the legend, in pixels
        self.camera = np.zeros(0)  # camera parameters that the legend was placed for
        keys = {
            ord("N"): lambda _: self._step(1),
            ord("P"): lambda _: self._step(-1),
            _RIGHT: lambda _: self._step(1),
            _LEFT: lambda _: self._step(-1),
            ord("1"): lambda _: self._choose(0),
            ord("2"): lambda _: self._choose(1),
            ord("3"): lambda _: self._choose(2),
            ord("="): lambda _: self._resize(1.25),
            334: lambda _: self._resize(1.25),  # + on the numeric keypad
            ord("-"): lambda _: self._resize(0.8),
            333: lambda _: self._resize(0.8),
            ord("S"): lambda _: self._screenshot(),
            ord("R"): lambda _: self._aim(),
        }
        for key, action in keys.items():
            self.visualizer.register_key_callback(key, action)
        self.visualizer.register_animation_callback(lambda _: self._hold_legend())
        self._draw(new_shape=True)

    def run(self) -> None:
        print(KEYS, flush=True)
        try:
            self.visualizer.run()
        finally:
            self.visualizer.destroy_window()

    def _draw(self, new_shape: bool) -> bool:
        b = self.browser
        self.visualizer.clear_geometries()
        cloud = point_cloud(self.o3d, b.scene.points, b.view.colors)
        self.visualizer.add_geometry(cloud, reset_bounding_box=new_shape)
        if new_shape:
            self.visualizer.get_render_option().point_size = point_size(len(b.scene.points), self.height)
            self._aim()
        self._add_legend()
        return True

    def _step(self, by: int) -> bool:
        self.browser.step(by)
        return self._draw(new_shape=True)

    def _choose(self, view_index: int) -> bool:
        return self._draw(new_shape=False) if self.browser.choose(view_index) else False

    def _resize(self, factor: float) -> bool:
        option = self.visualizer.get_render_option()
        option.point_size = float(np.clip(option.point_size * factor, 1.0, 25.0))  # open3d's own limit is 25
        return True

    def _aim(self) -> bool:
        aim(self.visualizer.get_view_control(), self.browser.scene.points)
        return True

    def _screenshot(self) -> bool:
        path = screenshot_name(self.folder, self.browser.scene, self.browser.view.title)
        self.visualizer.capture_screen_image(str(path), do_render=True)
        print(f"saved {path}", flush=True)
        return False

    def _add_legend(self) -> None:
        """Draw the caption as flat letter meshes, since open3d's basic window cannot draw text."""
        whole = self.o3d.geometry.TriangleMesh()
        for line, entry in enumerate(self.browser.caption()):
            letters = self.o3d.t.geometry.TriangleMesh.create_text(_printable(entry.text), depth=0.01)
            letters = letters.to_legacy().paint_uniform_color((0.16, 0.16, 0.16))
            down = -_LINE * line
            indent = 0.0
            if line >= 2:  # the lines below the name and the view have a colour
                swatch = self.o3d.geometry.TriangleMesh.create_box(10.0, 10.0, 0.01)
                swatch.paint_uniform_color(np.array(entry.color) / 255)
                whole += swatch.translate((0.0, down + 4.0, 0.0))
                indent = 15.0
            whole += letters.translate((indent, down, 0.0))
        self.letters = np.asarray(whole.vertices).copy()
        self.legend = whole
        self._place_legend()
        self.visualizer.add_geometry(self.legend, reset_bounding_box=False)

    def _place_legend(self) -> None:
        """Move the legend's vertices to the upper left corner of the camera's view."""
        camera = self.visualizer.get_view_control().convert_to_pinhole_camera_parameters()
        lens = camera.intrinsic
        self.camera = np.concatenate([camera.extrinsic.ravel(), lens.intrinsic_matrix.ravel()])
        pixels = np.stack([18 + self.letters[:, 0], 30 - self.letters[:, 1]], axis=1)  # y points down
        centre = np.array([lens.width / 2, lens.height / 2])
        # at depth 1 in front of the camera, which open3d keeps between its clipping planes
        seen = np.column_stack([(pixels - centre) / lens.get_focal_length(), np.ones(len(pixels))])
        rotation, shift = camera.extrinsic[:3, :3], camera.extrinsic[:3, 3]
        self.legend.vertices = self.o3d.utility.Vector3dVector((seen - shift) @ rotation)

    def _hold_legend(self) -> bool:
        """Keep the legend in its corner when the cloud is turned or the window resized."""
        camera = self.visualizer.get_view_control().convert_to_pinhole_camera_parameters()
        now = np.concatenate([camera.extrinsic.ravel(), camera.intrinsic.intrinsic_matrix.ravel()])
        if np.array_equal(now, self.camera):
            return False
        self._place_legend()
        self.visualizer.update_geometry(self.legend)
        return True


def _printable(text: str) -> str:
    """Replace characters that open3d's font lacks."""
    return "".join(c if " " <= c <= "~" else "?" for c in text) or " "
