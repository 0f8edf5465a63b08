import base64
import json
import re

import numpy as np
import pytest

from bixt3d.viewer import page
from bixt3d.viewer.page import write_page
from bixt3d.viewer.scene import part_scene

PARTS = ("cup/body", "cup/</script><b>handle")


def scenes(count=4):
    points = np.random.default_rng(0).normal(size=(count, 3))
    labels = np.arange(count) % 2
    return [part_scene("<i>a</i>.ply", points, labels, PARTS, 1 - labels)]


def embedded(path):
    """What a browser's script reads from the page."""
    text = path.read_text(encoding="utf-8")
    return text, json.loads(re.search(r"const data = (\{.*\});\n", text)[1])


def test_page_holds_the_scene_exactly(tmp_path):
    (scene,) = scenes()
    write_page(tmp_path / "a.html", [scene], title="mine")
    _, data = embedded(tmp_path / "a.html")
    (shown,) = data["scenes"]
    points = np.frombuffer(base64.b64decode(shown["points"]), "<f4").reshape(-1, 3)
    assert np.array_equal(points, scene.points)
    for view, one in zip(scene.views, shown["views"], strict=True):
        colors = np.frombuffer(base64.b64decode(one["colors"]), np.uint8).reshape(-1, 3)
        assert np.array_equal(colors, view.colors)
        assert [entry["text"] for entry in one["legend"]] == [entry.text for entry in view.legend]
        assert [tuple(entry["color"]) for entry in one["legend"]] == [entry.color for entry in view.legend]
    assert [one["title"] for one in shown["views"]] == ["prediction", "ground truth", "errors"]
    assert (data["title"], shown["name"], shown["note"]) == ("mine", "<i>a</i>.ply", "")


def test_page_fetches_nothing_and_names_cannot_end_the_script(tmp_path):
    write_page(tmp_path / "a.html", scenes())
    text, _ = embedded(tmp_path / "a.html")
    assert not re.search(r"https?:|//[a-z]|src=|@import|url\(|fetch\(|XMLHttpRequest", text)
    assert text.count("</script>") == 1
    assert "<i>" not in text


def test_large_clouds_are_thinned_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_POINTS", 10)
    points = np.random.default_rng(0).normal(size=(95, 3))
    scene = part_scene("a", points, np.arange(95) % 2, ("cup/body", "cup/handle"))
    write_page(tmp_path / "a.html", [scene])
    _, data = embedded(tmp_path / "a.html")
    (shown,) = data["scenes"]
    points = np.frombuffer(base64.b64decode(shown["points"]), "<f4").reshape(-1, 3)
    assert shown["note"] == "10 of 95 points shown"
    places = [int(np.flatnonzero((scene.points == point).all(axis=1))[0]) for point in points]
    assert len(places) == 10
    assert places[0] == 0
    assert places[-1] == 94
    assert set(np.diff(places)) <= {10, 11}
    colors = np.frombuffer(base64.b64decode(shown["views"][0]["colors"]), np.uint8).reshape(-1, 3)
    assert np.array_equal(colors, scene.views[0].colors[places])


def test_nothing_to_show(tmp_path):
    with pytest.raises(ValueError, match="scenes: got none"):
        write_page(tmp_path / "a.html", [])
