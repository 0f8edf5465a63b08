"""The viewer's window, on a stand-in for open3d that keeps what it is told: keys, legend, screenshots."""

from types import SimpleNamespace

import numpy as np
import pytest

from bixt3d.viewer import pictures as viewer
from bixt3d.viewer import window
from bixt3d.viewer.scene import part_scene, plain_scene

LEFT, RIGHT = 263, 262  # as GLFW numbers the arrows


class Mesh:
    """A cloud of vertices with one colour each, as open3d's meshes of letters and boxes."""

    def __init__(self, vertices=(), colors=()):
        self.vertices = np.array(vertices, dtype=float).reshape(-1, 3)
        self.colors = np.array(colors, dtype=float).reshape(-1, 3)

    def paint_uniform_color(self, color):
        self.colors = np.tile(np.array(color, dtype=float), (len(self.vertices), 1))
        return self

    def translate(self, shift):
        self.vertices = self.vertices + np.array(shift)
        return self

    def to_legacy(self):
        return self

    def __iadd__(self, other):
        self.vertices = np.vstack([self.vertices, other.vertices])
        self.colors = np.vstack([self.colors, other.colors])
        return self


class Control:
    """A camera that stands aslant, so that no axis of it is one of the scene."""

    def __init__(self):
        angle = 0.7
        turn = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        self.extrinsic = np.eye(4)
        self.extrinsic[:3, :3], self.extrinsic[:3, 3] = turn, (0.3, -0.2, 4.0)
        self.aimed = 0

    def set_lookat(self, point):
        self.aimed += 1

    def set_front(self, front):
        pass

    set_up = set_zoom = set_front

    def get_field_of_view(self):
        return 60.0

    def convert_to_pinhole_camera_parameters(self):
        matrix = np.array([[500.0, 0, 200], [0, 500, 150], [0, 0, 1]])
        lens = SimpleNamespace(
            width=400, height=300, intrinsic_matrix=matrix, get_focal_length=lambda: (500.0, 500.0)
        )
        return SimpleNamespace(extrinsic=self.extrinsic, intrinsic=lens)


class Visualizer:
    def __init__(self):
        self.option, self.control = SimpleNamespace(point_size=0.0), Control()
        self.keys, self.shown, self.pressed, self.images, self.open = {}, [], [], [], False

    def create_window(self, **size):
        self.open = True
        return True

    def get_render_option(self):
        return self.option

    def get_view_control(self):
        return self.control

    def register_key_callback(self, key, action):
        self.keys[key] = action

    def register_animation_callback(self, action):
        self.before_each_picture = action

    def clear_geometries(self):
        self.shown = []

    def add_geometry(self, geometry, **options):
        self.shown.append(geometry)

    def update_geometry(self, geometry):
        assert geometry is self.shown[1]

    def capture_screen_image(self, path, **options):
        self.images.append(path)

    def run(self):
        for press in self.pressed:
            press(self)

    def destroy_window(self):
        self.open = False


@pytest.fixture
def seen(monkeypatch):
    """Open the window on scenes, press keys, look after each; returns the visualizer."""
    made, texts = Visualizer(), []

    def letters(text, depth):
        texts.append(text)
        return Mesh([(0, 0, 0), (len(text), 10, 0)])  # ten units tall

    class Triangles(Mesh):
        create_box = staticmethod(lambda *size: Mesh([(0, 0, 0), size]))
        create_text = staticmethod(letters)

    def cloud(points):
        return SimpleNamespace(points=points, colors=None)

    fake = SimpleNamespace(
        visualization=SimpleNamespace(VisualizerWithKeyCallback=lambda: made),
        geometry=SimpleNamespace(PointCloud=cloud, TriangleMesh=Triangles),
        t=SimpleNamespace(geometry=SimpleNamespace(TriangleMesh=Triangles)),
        utility=SimpleNamespace(Vector3dVector=np.array),
    )
    monkeypatch.setattr(window, "import_open3d", lambda: fake)
    monkeypatch.setattr(window, "check_display", lambda: None)

    def run(scenes, *keys, **options):
        looks = []

        def press(key):
            def pressed(visualizer):
                texts.clear()
                visualizer.keys[key if isinstance(key, int) else ord(key)](visualizer)
                looks.append((visualizer.shown[0], list(texts), visualizer.option.point_size))

            return pressed

        made.pressed = [press(key) for key in keys]
        window.show(scenes, **options)
        return made, looks

    return run


def scenes():
    points = np.random.default_rng(0).normal(size=(30, 3))
    labels = np.arange(30) % 2
    parts = ("cup/body", "cup/handle")
    return [
        part_scene("one", points, labels, parts, 1 - labels),
        plain_scene("two", points[:20], "cup"),
        part_scene("three é", points[:10], labels[:10], parts),
    ]


def test_keys_go_through_shapes_and_views(seen):
    given = scenes()
    keys = ["N", "P", RIGHT, RIGHT, RIGHT, LEFT, "P", "P", "2", "3", "1", "3", "N", "2"]
    visualizer, looks = seen(given, *keys)
    places = [texts[0].split(" ")[0] if texts else "" for _, texts, _ in looks]
    assert places[:8] == ["2/3", "1/3", "2/3", "3/3", "1/3", "3/3", "2/3", "1/3"]
    assert looks[3][1][0] == "3/3 three ?", "open3d has no letters but those of ASCII"
    titles = [texts[1] if texts else "" for _, texts, _ in looks]
    assert titles[8:] == ["ground truth", "errors", "prediction", "errors", "cup", ""]
    for look, view in zip(looks[8:11], (1, 2, 0), strict=True):
        cloud = look[0]
        assert np.allclose(cloud.colors, given[0].views[view].colors / 255)
        assert np.allclose(cloud.points, given[0].points)
    assert not visualizer.open


def test_another_view_leaves_the_camera_as_it_is(seen):
    assert seen(scenes())[0].control.aimed == 1
    assert seen(scenes(), "2", "3", "1")[0].control.aimed == 2  # the first of both windows, and no more
    assert seen(scenes(), "N")[0].control.aimed == 4
    assert seen(scenes(), "R")[0].control.aimed == 6


def test_points_grow_and_shrink_within_what_open3d_draws(seen):
    _, looks = seen(scenes(), *"=-", 334, 333, *["="] * 30, *["-"] * 40)
    sizes = [size for _, _, size in looks]
    start = viewer.point_size(30, 750)
    assert sizes[:4] == pytest.approx([1.25 * start, start, 1.25 * start, start])
    assert max(sizes) == 25
    assert min(sizes) == 1


def test_the_legend_stays_in_the_upper_left_corner(seen):
    visualizer, _ = seen(scenes())
    for angle in (0.0, 0.9):
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        visualizer.control.extrinsic[:3, :3] = turn @ visualizer.control.extrinsic[:3, :3]
        assert visualizer.before_each_picture(visualizer) == (angle > 0)
        legend = visualizer.shown[1]
        camera = visualizer.control.extrinsic
        inside = legend.vertices @ camera[:3, :3].T + camera[:3, 3]
        assert (inside[:, 2] > 0).all(), "before the camera"
        x, y = (500 * inside[:, :2] / inside[:, 2:] + (200, 150)).T  # y points down
        # two lines without a colour, then a square and letters for each of two parts, below each other
        assert np.allclose(x[[0, 2, 4, 6, 8, 10]], [18, 18, 18, 33, 18, 33])
        assert (y > 0).all()
        assert (np.diff(y[[0, 2, 6, 10]]) > 10).all(), "each line below the one before it"
        assert (y[[1, 3, 7, 11]] < y[[0, 2, 6, 10]]).all(), "letters stand upright"
    first, second = scenes()[0].views[0].legend
    assert np.allclose(legend.colors[4], np.array(first.color) / 255)
    assert np.allclose(legend.colors[8], np.array(second.color) / 255)


def test_screenshots_go_to_the_folder(seen, tmp_path, capsys):
    visualizer, _ = seen(scenes(), "2", "S", folder=tmp_path)
    assert visualizer.images == [str(tmp_path / "one_ground_truth.png")]
    assert f"saved {tmp_path / 'one_ground_truth.png'}" in capsys.readouterr().out


def test_the_window_is_closed_whatever_happens(seen):
    visualizer, _ = seen(scenes())
    with pytest.raises(KeyError):
        seen(scenes(), "?")
    assert not visualizer.open
