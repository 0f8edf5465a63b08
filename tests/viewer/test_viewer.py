import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toys import PARTS, segmenter

from bixt3d.io.cloud import turn_to_y
from bixt3d.viewer import pictures as viewer
from bixt3d.viewer.palette import PALETTE
from bixt3d.viewer.scene import part_scene, plain_scene
from bixt3d.viewer.window import Browser, show

SCRIPT = Path(__file__).parents[2] / "scripts" / "view_parts.py"
PREDICT = SCRIPT.with_name("predict.py")


def scene(name="a", truth=True):
    """A square in the plane x = 0, its upper half another part than its lower."""
    y, z = np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 60))
    points = np.stack([np.zeros(y.size), y.ravel(), z.ravel()], axis=1)
    labels = (points[:, 1] > 0).astype(np.int64)
    return part_scene(name, points, labels, ("flag/lower", "flag/upper"), 1 - labels if truth else None)


def has_open3d():
    try:
        import open3d  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


needs_open3d = pytest.mark.skipif(not has_open3d(), reason="open3d is not installed, or lacks a library")


@needs_open3d
def test_pictures_without_a_display(tmp_path):
    # in a process of its own: open3d asks for the display once
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np; from test_viewer import scene; from bixt3d.viewer.pictures import render, save_png\n"
        "np.save(sys.argv[2] + '/images.npy', np.array(render([scene()], size=120)))\n"
        "save_png(sys.argv[2] + '/a.png', [scene(), scene('b\\udce9 $x_', truth=False)], size=120)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)],
        check=True,
        env=environment | {"PYTHONPATH": str(SCRIPT.parents[1])},
        capture_output=True,
    )
    prediction, truth, errors = np.load(tmp_path / "images.npy")[0]
    assert prediction.shape == (120, 120, 3)
    for edge in (prediction[0], prediction[-1], prediction[:, 0], prediction[:, -1]):
        assert (edge == 255).all()  # all of it is in the picture
    # up in the cloud is up in the picture, in exactly the colours of the legend
    for image, above, below in ((prediction, 1, 0), (truth, 0, 1)):
        rows = [np.flatnonzero((image == PALETTE[part]).all(axis=2).any(axis=1)) for part in (above, below)]
        assert min(map(len, rows)) > 20
        assert rows[0].mean() < rows[1].mean() - 10
    assert not (errors == PALETTE[0]).all(axis=2).any()
    from matplotlib.image import imread

    picture = imread(tmp_path / "a.png")
    assert picture.shape[1] == 3 * 120
    assert picture.shape[0] > 2 * 120


def test_a_missing_display_is_one_sentence(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("Linux names its display in DISPLAY")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match=r"DISPLAY is not set.*--save FILE\.html.*ssh -X"):
        show([scene()])
    monkeypatch.setenv("DISPLAY", ":4093")
    with pytest.raises((RuntimeError, ImportError), match=r"':4093' \(DISPLAY\) does not answer|libx11-6"):
        show([scene()])


@pytest.mark.parametrize(
    ("library", "package"),
    [("libusb-1.0.so.0", "libusb-1.0-0"), ("libEGL.so.1", "libegl1"), ("libGL.so.1", "libgl1")],
)
def test_a_missing_library_names_its_package(monkeypatch, library, package):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "open3d":
                raise OSError(f"{library}: cannot open shared object file: No such file or directory")

    monkeypatch.delitem(sys.modules, "open3d", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ImportError, match=rf"cannot load {library}; .*apt-get install {package} "):
        viewer.import_open3d()


def test_missing_open3d_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(ImportError, match="pip install open3d"):
        viewer.save_png("never.png", [scene()])


def test_browser_goes_round_and_keeps_the_view():
    browser = Browser([scene("a"), plain_scene("b", np.eye(3), "cup"), scene("c", truth=False)])
    assert browser.choose(2)
    assert browser.caption()[0].text == "1/3 a"
    assert [entry.text for entry in browser.caption()[1:]] == ["errors", "correct 0.0 %", "wrong 100.0 %"]
    browser.step(1)
    assert (browser.scene.name, browser.view.title) == ("b", "cup")  # it has one view
    assert not browser.choose(1)
    browser.step(1)
    browser.step(1)
    assert (browser.scene.name, browser.view.title) == ("a", "errors")
    browser.step(-1)
    assert browser.scene.name == "c"
    with pytest.raises(ValueError, match="scenes: got none"):
        Browser([])


def test_the_camera_sees_all_from_in_front_and_no_nearer_than_it_has_to():
    """By open3d's own rule: the eye is at lookat + front * zoom * (largest extent) / tan(fov / 2)."""
    told = {}

    class Control:
        def __getattr__(self, name):
            return lambda value: told.update({name: np.array(value)})

        def get_field_of_view(self):
            return 60.0

    rng = np.random.default_rng(0)
    for size in ((1, 1, 1), (3, 0.2, 0.5), (0.1, 2, 0.1), (0.3, 0.3, 5)):
        points = rng.uniform(size=(500, 3)) ** 3 * size + [7, -3, 2]  # most of them in one corner
        viewer.aim(Control(), points)
        low, high = points.min(axis=0), points.max(axis=0)
        assert np.allclose(told["set_lookat"], (low + high) / 2)
        front, up = told["set_front"], told["set_up"]
        assert np.allclose([front @ front, up @ up, front @ up], [1, 1, 0])
        assert (front > 0).all(), "from the right, from above, from in front"
        assert up[1] > 0.8, "what is up stands up"
        slope = np.tan(np.radians(30))
        away = told["set_zoom"] * (high - low).max() / slope
        depth = away - (points - told["set_lookat"]) @ front
        across = (points - told["set_lookat"]) @ np.stack([np.cross(up, front), up], axis=1)
        reach = np.abs(across / (slope * depth[:, None])).max()
        assert reach == pytest.approx(viewer.MARGIN)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_where_a_window_can_be_asked_for(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("DISPLAY", "SSH_CONNECTION", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if platform == "linux":
        monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    viewer.check_display()
    if platform == "darwin":
        monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 22 10.0.0.2 22")
        with pytest.raises(RuntimeError, match=r"no window can be opened over ssh; .*--save FILE\.html"):
            viewer.check_display()


def test_screenshots_never_overwrite(tmp_path):
    first = viewer.screenshot_name(tmp_path, scene("dir/a b.ply"), "ground truth")
    assert first == tmp_path / "dir_a_b.ply_ground_truth.png"
    first.write_text("")
    assert viewer.screenshot_name(tmp_path, scene("dir/a b.ply"), "ground truth").name.endswith("_2.png")
    (tmp_path / "dir_a_b.ply_ground_truth_2.png").touch()
    assert viewer.screenshot_name(tmp_path, scene("dir/a b.ply"), "ground truth").name.endswith("_3.png")


def test_points_shrink_as_they_grow_in_number():
    sizes = [viewer.point_size(count, 720) for count in (10, 2048, 20_000, 10**6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] >= 1
    # a quarter of the points, twice the size: they cover the same
    assert viewer.point_size(2000, 400) == pytest.approx(2 * viewer.point_size(8000, 400))
    assert viewer.point_size(2000, 800) == pytest.approx(2 * viewer.point_size(2000, 400))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["m.pt"], "either FILES or --split"),
        (["m.pt", "--split", "test", "--up", "z"], "--up: is for FILES"),
        (["m.pt", "--split", "test", "--samples", "9"], "--samples: is for meshes among FILES"),
        (["m.pt", "a.ply", "--save", "a.html", "--samples", "0"], "samples: expected at least 1, got 0"),
        (["m.pt", "a.ply", "--split", "test"], "either FILES or --split"),
        (
            ["m.pt", "a.ply", "--save", "a.gif"],
            r"--save: unknown format '\.gif', expected one of \.html, \.png",
        ),
        (["m.pt", str(SCRIPT), "--save", "a.html"], r"m\.pt: no such checkpoint"),
        (["m.pt", "a.ply", "--index", "3"], "--index, --data-root: are for --split"),
        (["m.pt", "a.ply", "--data-root", "d"], "--index, --data-root: are for --split"),
        (["m.pt", "a.ply", "--save", "a.html", "--size", "90"], "--size: is for pictures"),
        (["m.pt", "a.ply", "--save", "a.png", "--size", "-5"], "--size: expected at least 1, got -5"),
        (["m.pt", "a.ply", "--layer", "2"], "--layer: is for --attention"),
        (
            ["m.pt", "a.ply", "--category", "a", "--classifier", "c.pt"],
            "--category, --classifier: .*at most one",
        ),
        (
            ["m.pt", "a.ply", "--save", f"{SCRIPT}/a.html"],
            r"view_parts\.py is not a folder; expected one to write into",
        ),
    ],
)
def test_the_command_says_what_is_wrong(arguments, words):
    with pytest.raises(SystemExit, match=f"error: .*{words}"):
        runpy.run_path(str(SCRIPT))["main"](arguments)


@pytest.mark.parametrize(
    "options", [[], ["--seed", "5"], ["--drop-strays"], ["--samples", "77", "--seed", "3", "--up", "z"]]
)
def test_what_is_seen_is_what_is_predicted(tmp_path, monkeypatch, caplog, options):
    import bixt3d.inference.loading

    def load(path, *, seed, drop_strays, **others):
        return segmenter(seed=seed, drop_strays=drop_strays)

    def written(path, scenes, **others):
        seen.extend(scenes)

    seen = []
    monkeypatch.setattr(bixt3d.inference.loading, "load", load)
    monkeypatch.setattr("bixt3d.viewer.page.write_page", written)
    cloud = np.random.default_rng(0).normal(size=(100, 3))
    np.save(tmp_path / "cloud.npy", np.concatenate([cloud, [[0, 70, 9]]]))
    (tmp_path / "mesh.off").write_text("OFF\n3 1 0\n0 0 0\n9 0 1\n0 9 2\n3 0 1 2\n")
    np.save(tmp_path / "few.npy", np.eye(3))
    files = [str(tmp_path / name) for name in ("cloud.npy", "mesh.off", "few.npy")]
    out = tmp_path / "out"
    assert runpy.run_path(str(PREDICT))["main"](["m.pt", *files, "--out", str(out), *options]) == 0
    assert runpy.run_path(str(SCRIPT))["main"](["m.pt", *files, "--save", str(out / "a.html"), *options]) == 0
    for name, scene in zip(("cloud", "mesh", "few"), seen, strict=True):
        saved = np.load(out / f"{name}_parts.npz")
        points = turn_to_y(saved["points"], "z" if "z" in options else "y")
        expected = part_scene(name, points, saved["labels"], PARTS)
        assert np.array_equal(scene.points, expected.points)
        assert np.array_equal(scene.views[0].colors, expected.views[0].colors)
        assert len({entry.name for entry in scene.views[0].legend}) > 1
    assert ["few.npy: has 3 points" in note for note in caplog.messages] == [True, True], "one of each script"


def test_a_folder_of_the_name_to_save_is_found_before_the_work(tmp_path):
    (tmp_path / "d.html").mkdir()
    with pytest.raises(SystemExit, match=r"error: .*d\.html: is a folder; expected the name of a file"):
        runpy.run_path(str(SCRIPT))["main"](["m.pt", "a.ply", "--save", str(tmp_path / "d.html")])


def test_a_bad_file_is_passed_over(tiny_run, tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    page, good = tmp_path / "page.html", tmp_path / "good.xyz"
    np.savetxt(good, np.random.default_rng(0).normal(size=(50, 3)))
    (tmp_path / "bad.txt").write_text("0 0 0\n1 1\n")
    (tmp_path / "predictions.csv").write_text("file,points\n")
    files = [str(tmp_path), str(tmp_path / "absent.ply")]

    def call(names, *options):
        return main([str(tiny_run), *names, "--save", str(page), "--device", "cpu", *options])

    assert call(files) == 1
    out, err = capsys.readouterr()
    assert out == f"saved {page}\n"
    assert [line.startswith("error: ") for line in err.splitlines() if str(tmp_path) in line] == [True, True]
    assert "bad.txt" in err
    assert "absent.ply: there is no such file or folder" in err
    assert '"good.xyz"' in page.read_text()
    assert "bad.txt" not in page.read_text()
    page.unlink()
    with pytest.raises(SystemExit, match="error: nothing to show, since none of the files can be used"):
        call(files[1:])
    assert not page.exists()
    assert call([str(good)], "--attention", "0") == 0
    capsys.readouterr()
    # a mistake about the model is said once, not for each file
    with pytest.raises(SystemExit, match=r"error: latent: the model has latents 0 to \d+, got 999"):
        call([str(good)], "--attention", "999")
    with pytest.raises(SystemExit, match="error: category: this model is a classifier"):
        call([str(good)], "--category", "nosuch")
    assert capsys.readouterr().err == ""
