import os

import numpy as np
import pytest

from bixt3d.datasets import cache
from bixt3d.datasets.cache import cached_array


def build(root, folder=None, settings=None, calls=None, fail_at=None):
    files = sorted(root.glob("*.txt"))

    def parse(i):
        if i == fail_at:
            raise RuntimeError("damaged")
        if calls is not None:
            calls.append(i)
        return np.full((2, 3), float(files[i].read_text()))

    return cached_array("train", root, files, settings or {}, (len(files), 2, 3), parse, folder)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text(str(i))
    return folder


def test_parsed_once_and_memory_mapped(root):
    calls = []
    array = build(root, calls=calls)
    assert isinstance(array, np.memmap)
    assert array[:, 0, 0].tolist() == [0, 1, 2]
    build(root, calls=calls)
    assert calls == [0, 1, 2]


def test_rebuilt_when_files_settings_or_cache_change(root):
    calls = []
    build(root, calls=calls)
    (root / "3.txt").write_text("3")
    assert build(root, calls=calls).shape == (4, 2, 3)
    build(root, settings={"stored_points": 5}, calls=calls)
    assert len(calls) == 3 + 4 + 4
    for file in (root.parent / "set_cache").iterdir():
        file.write_bytes(file.read_bytes()[:-8])  # cut short, as by a full disk
    assert build(root, calls=calls)[3, 1, 2] == 3
    assert len(calls) == 3 + 4 + 4 + 4


def test_rebuilt_when_only_the_time_of_a_file_changes(root):
    build(root)
    (root / "1.txt").write_text("7")  # as long as before
    os.utime(root / "1.txt", ns=(1, 1))
    assert build(root)[:, 0, 0].tolist() == [0, 7, 2]


def test_rebuilt_when_the_format_changes(root, monkeypatch):
    calls = []
    build(root, calls=calls)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    build(root, calls=calls)
    assert calls == [0, 1, 2] * 2
    assert len(list((root.parent / "set_cache").iterdir())) == 1  # the old one is gone


def test_a_failed_build_leaves_nothing(root, tmp_path):
    with pytest.raises(RuntimeError, match="damaged"):
        build(root, folder=tmp_path / "c", fail_at=2)
    assert list((tmp_path / "c").iterdir()) == []


def test_falls_back_to_the_users_cache_folder(root, tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "user" / name)
    (tmp_path / "set_cache").write_text("a file where the folder should be")
    assert build(root).shape == (3, 2, 3)
    assert len(list((tmp_path / "user" / "bixt3d").iterdir())) == 1
