import os
import re
import tempfile

import numpy as np
import pytest

from bixt3d.datasets import cache
from bixt3d.datasets.cache import cached_array, cached_rows
from bixt3d.errors import sentence


def build(root, folder=None, settings=None, calls=None, fail_at=None, damaged=()):
    files = sorted(root.glob("*.txt"))

    def parse(i):
        if i == fail_at:
            raise RuntimeError("damaged")
        if i in damaged:
            raise ValueError(f"{files[i].name}: is damaged.")
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
    for i, end in enumerate((-8, 0), 1):  # cut short, or emptied by a power cut
        for file in (root.parent / "set_cache").iterdir():
            file.write_bytes(file.read_bytes()[:end])
        assert build(root, calls=calls)[3, 1, 2] == 3
        assert len(calls) == 3 + 4 + 4 + 4 * i


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


def test_rebuilt_when_only_the_size_or_the_name_of_a_file_changes(root):
    def touch():
        for file in root.iterdir():
            os.utime(file, ns=(1, 1))

    touch()
    build(root)
    (root / "1.txt").write_text("77")
    touch()
    assert build(root)[:, 0, 0].tolist() == [0, 77, 2]
    (root / "1.txt").write_text("7")
    touch()
    build(root)
    (root / "1.txt").rename(root / "9.txt")  # sizes and times are the same as before, in the same order
    assert build(root)[:, 0, 0].tolist() == [0, 2, 7]


def test_two_sets_in_one_folder_keep_their_own(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for i in range(3):
        (other / f"{i}.txt").write_text(str(9 - i))
        for folder in (root, other):
            os.utime(folder / f"{i}.txt", ns=(1, 1))
    for calls in ([], None):
        assert build(root, tmp_path / "c", calls=calls)[:, 0, 0].tolist() == [0, 1, 2]
        assert build(other, tmp_path / "c")[:, 0, 0].tolist() == [9, 8, 7]
    calls = []
    build(root, tmp_path / "c", calls=calls)
    assert calls == [], "the other set's cache did not take its place"


def rows(root, sizes, folder, fail_at=None):
    files = sorted(root.glob("*.txt"))

    def parse(i):
        if i == fail_at:
            raise RuntimeError("damaged")
        return np.full((sizes[i], 2), i)

    return cached_rows("train", root, files, {}, 2, parse, folder)


def test_rows_of_clouds_of_several_sizes(root, tmp_path):
    found, offsets = rows(root, (3, 1, 2), tmp_path / "c")
    assert offsets.tolist() == [0, 3, 4, 6]
    assert found.tolist() == [[i, i] for i in (0, 0, 0, 1, 2, 2)]
    again, _ = rows(root, (), tmp_path / "c")
    assert np.array_equal(again, found), "read, not parsed again"


def test_rows_that_cannot_be_parsed_leave_nothing(root, tmp_path):
    with pytest.raises(RuntimeError, match="damaged"):
        rows(root, (3, 1, 2), tmp_path / "c", fail_at=2)
    assert list((tmp_path / "c").iterdir()) == []
    assert rows(root, (3, 1, 2), tmp_path / "c")[1].tolist() == [0, 3, 4, 6]


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


def refuse(monkeypatch, *folders):
    """Make folders read-only, for root as well."""
    make = tempfile.TemporaryFile

    def refused(dir):
        if dir in folders:
            raise PermissionError(13, "Permission denied")
        return make(dir=dir)

    monkeypatch.setattr("tempfile.TemporaryFile", refused)


def test_a_folder_that_cannot_be_written_falls_back_too(root, tmp_path, monkeypatch):
    import pooch

    refuse(monkeypatch, tmp_path / "set_cache")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "user" / name)
    (tmp_path / "set_cache").mkdir()
    assert build(root).shape == (3, 2, 3)
    assert list((tmp_path / "set_cache").iterdir()) == []
    assert len(list((tmp_path / "user" / "bixt3d").iterdir())) == 1


def test_where_no_cache_can_be_kept_the_setting_is_named(root, tmp_path, monkeypatch):
    import pooch

    users = tmp_path / "user" / "bixt3d"
    monkeypatch.setattr(pooch, "os_cache", lambda name: users)
    refuse(monkeypatch, tmp_path / "set_cache", users)
    with pytest.raises(PermissionError, match=r"^data\.cache: .*set_cache or .*; name .* data\.cache=DIR"):
        build(root)


def test_what_a_killed_build_left_is_removed(root):
    build(root)
    kept = root.parent / "set_cache"
    (written,) = kept.iterdir()
    left = kept / f".{written.stem}.0123abcd.npy"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    written.unlink()
    build(root)
    assert list(kept.iterdir()) == [written]


def test_files_that_cannot_be_parsed_are_named_together(root):
    for i in range(3, 40):
        (root / f"{i:02}.txt").write_text("1")
    files = sorted(path.name for path in root.glob("*.txt"))
    for damaged in ((3, 7, 39), range(1, 13)):
        with pytest.raises(RuntimeError, match=rf"^{len(damaged)} of the 40 files of train cannot") as failed:
            build(root, damaged=damaged)
        said = re.findall(r"(\S+\.txt): is damaged\.", str(failed.value))
        assert said == [files[i] for i in damaged][:10]
        assert ("the first 10" in str(failed.value)) == (len(damaged) > 10)
    assert list((root.parent / "set_cache").iterdir()) == []
    with pytest.raises(ValueError, match=rf"^{files[5]}: is damaged\.$"):
        build(root, damaged=(5,))
    calls = []
    with pytest.raises(ValueError, match=rf"^{files[0]}: is damaged\.$"):
        build(root, damaged=range(10), calls=calls)
    assert calls == [], "a setting is wrong; nobody waits for the other 30"


def test_an_error_of_the_system_while_a_file_is_read_names_that_file_and_not_the_cache(root):
    """A disk that fails names nothing; a file that another one needs is named by the reader."""
    files = sorted(root.glob("*.txt"))
    missing = FileNotFoundError(f"{files[1]}: lies without its numbers.bin.")
    for raised, said in (
        (OSError(5, "Input/output error"), f"{files[1]}: Input/output error."),
        (missing, str(missing)),
    ):

        def parse(i, raised=raised):
            if i == 1:
                raise raised
            return np.zeros((2, 3))

        for make, form in ((cached_array, (3, 2, 3)), (cached_rows, 3)):
            with pytest.raises(type(raised)) as failed:
                make("train", root, files, {}, form, parse)
            assert sentence(failed.value) == said
