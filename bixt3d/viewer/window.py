"""The viewer's window: keys, legend, screenshots."""

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
_RIGHT, _LEFT = 262, 263  # GLFW's numbers of the arrow keys
_LINE = 19.0  # pixels between lines; open3d's capital letters are 10 units tall, drawn as 10 pixels


class Browser:
    """Which shape and which view is shown; knows nothing of windows."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        if not scenes:
            raise ValueError("scenes: got none, expected at least one.")
        self.scenes = list(scenes)
        self.index = 0
        self.view_index = 0

    @property
    def scene(self) -> Scene:
        """The scene that is shown."""
        return self.scenes[self.index]

    @property
    def view(self) -> View:
        """The view that is shown: the one chosen, or the last where this scene has fewer."""
        return self.scene.views[min(self.view_index, len(self.scene.views) - 1)]

    def step(self, by: int) -> None:
        """Go on by ``by`` scenes, round the end."""
        self.index = (self.index + by) % len(self.scenes)

    def choose(self, view_index: int) -> bool:
        """Take another view; False, and no change, where the scene has no such view."""
        if view_index >= len(self.scene.views):
            return False
        self.view_index = view_index
        return True

    def caption(self) -> tuple[LegendEntry, ...]:
        """Return the lines to show beside the cloud: name, view, legend."""
        ink = (40, 40, 40)
        place = f"{self.index + 1}/{len(self.scenes)} {self.scene.name}"
        return (LegendEntry(place, ink), LegendEntry(self.view.title, ink), *self.view.legend)


def show(
    scenes: Sequence[Scene], *, width: int = 1000, height: int = 750, folder: Path | None = None
) -> None:
    """Open a window on scenes and return when it is closed.

    Args:
        scenes: what to go through.
        width, height: of the window, in pixels.
        folder: where screenshots go; None for the current folder.

    Raises:
        RuntimeError: no display can be opened; the message says what to do instead.
        ImportError: open3d is not installed, or lacks a system library.
    """
    check_display()
    _Window(Browser(scenes), import_open3d(), width, height, folder or Path()).run()


class _Window:
    """open3d's window around a browser."""

    def __init__(self, browser: Browser, o3d: Any, width: int, height: int, folder: Path) -> None:
        self.browser = browser
        self.o3d = o3d
        self.folder = folder
        self.visualizer = o3d.visualization.VisualizerWithKeyCallback()
        if not self.visualizer.create_window(window_name="bixt3d", width=width, height=height):
            raise RuntimeError(
                "open3d could not open a window on this display (has it no OpenGL?); save a picture with "
                "--save FILE.png or a page with --save FILE.html."
            )
        self.height = height
        option = self.visualizer.get_render_option()
        option.light_on = False  # colours as in the legend, whatever side is seen
        option.mesh_show_back_face = True
        self.legend: Any = None
        self.letters = np.zeros((0, 3))  # its vertices, in pixels
        self.camera = np.zeros(0)  # for which it was placed
        keys = {
            ord("N"): lambda _: self._step(1),
            ord("P"): lambda _: self._step(-1),
            _RIGHT: lambda _: self._step(1),
            _LEFT: lambda _: self._step(-1),
            ord("1"): lambda _: self._choose(0),
            ord("2"): lambda _: self._choose(1),
            ord("3"): lambda _: self._choose(2),
            ord("="): lambda _: self._resize(1.25),
            334: lambda _: self._resize(1.25),  # + of the number block
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
        """Draw the caption as flat letters; open3d's light window has no text of its own."""
        whole = self.o3d.geometry.TriangleMesh()
        for line, entry in enumerate(self.browser.caption()):
            letters = self.o3d.t.geometry.TriangleMesh.create_text(_printable(entry.text), depth=0.01)
            letters = letters.to_legacy().paint_uniform_color((0.16, 0.16, 0.16))
            down = -_LINE * line
            indent = 0.0
            if line >= 2:  # below the name and the view, lines have a colour
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
        """Put the legend's vertices where the camera sees them in the upper left corner."""
        camera = self.visualizer.get_view_control().convert_to_pinhole_camera_parameters()
        lens = camera.intrinsic
        self.camera = np.concatenate([camera.extrinsic.ravel(), lens.intrinsic_matrix.ravel()])
        pixels = np.stack([18 + self.letters[:, 0], 30 - self.letters[:, 1]], axis=1)  # y points down
        centre = np.array([lens.width / 2, lens.height / 2])
        # at depth 1 before the camera, which open3d keeps between its clipping planes
        seen = np.column_stack([(pixels - centre) / lens.get_focal_length(), np.ones(len(pixels))])
        rotation, shift = camera.extrinsic[:3, :3], camera.extrinsic[:3, 3]
        self.legend.vertices = self.o3d.utility.Vector3dVector((seen - shift) @ rotation)

    def _hold_legend(self) -> bool:
        """Keep the legend in its corner while the cloud turns or the window changes its size."""
        camera = self.visualizer.get_view_control().convert_to_pinhole_camera_parameters()
        now = np.concatenate([camera.extrinsic.ravel(), camera.intrinsic.intrinsic_matrix.ravel()])
        if np.array_equal(now, self.camera):
            return False
        self._place_legend()
        self.visualizer.update_geometry(self.legend)
        return True


def _printable(text: str) -> str:
    """Replace what open3d's font lacks."""
    return "".join(c if " " <= c <= "~" else "?" for c in text) or " "
