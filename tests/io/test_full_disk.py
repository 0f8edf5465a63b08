"""A disk that is full: one error that names the file, the old file whole, and nothing left to fill the disk.

A limit on the size of files stands for it: the system refuses the write in the same way, by another number.
"""

import contextlib
import os
import time

import numpy as np
import pytest
import torch

from bixt3d.checkpoint import load_checkpoint, save_checkpoint
from bixt3d.datasets.cache import cached_array, cached_rows
from bixt3d.errors import sentence
from bixt3d.io.writing import remove_leftovers, write_csv, write_json, write_npz, write_ply, write_text
from bixt3d.training.logs import RunLog

resource = pytest.importorskip("resource")
ROOM = 50_000  # bytes
CLOUD = np.random.default_rng(0).normal(size=(5_000, 3)).astype(np.float32)
WRITERS = {
    "last.pt": lambda path: save_checkpoint(path, {"w": torch.zeros(20_000)}),
    "many.pt": lambda path: save_checkpoint(path, {"w": [torch.zeros(5_000) for _ in range(4)]}),
    "a.txt": lambda path: write_text(path, "x" * 80_000),
    "a.json": lambda path: write_json(path, ["x" * 80_000]),
    "a.csv": lambda path: write_csv(path, [["x" * 100]] * 800),
    "a.npz": lambda path: write_npz(path, {"points": CLOUD}),
    "a.ply": lambda path: write_ply(path, CLOUD, np.zeros((5_000, 3), np.uint8)),
}


@contextlib.contextmanager
def full_disk():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_the_error_names_the_file_and_the_old_one_stays(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    with full_disk(), pytest.raises(OSError, match="too large") as full:
        WRITERS[name](path)
    assert sentence(full.value) == f"{path}: File too large."
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_may_not_be_written_is_named_by_the_file(tmp_path, monkeypatch):
    """Not by the temporary name, which nobody has ever seen."""

    def refuse(source, target):
        raise PermissionError(13, "Permission denied", str(source), None, str(target))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(PermissionError) as refused:
        write_text(tmp_path / "a.txt", "x")
    assert sentence(refused.value) == f"{tmp_path / 'a.txt'}: Permission denied."


@pytest.mark.parametrize("build", [cached_array, cached_rows])
def test_a_cache_that_does_not_fit(tmp_path, build):
    files = [tmp_path / f"{i}.txt" for i in range(4)]
    for file in files:
        file.write_text("x")
    form = (4, 5_000, 3) if build is cached_array else 3
    place = tmp_path / "c"
    with full_disk(), pytest.raises(OSError, match="too large") as full:
        build("train", tmp_path, files, {}, form, lambda i: CLOUD, place)
    assert sentence(full.value).startswith(f"{place}{os.sep}train-")
    assert list(place.iterdir()) == []


def test_a_cache_asks_for_the_disk_as_it_goes(tmp_path):
    """A map of the whole file at the start would kill the process where the disk, not the file, has an end."""
    files = [tmp_path / f"{i}.txt" for i in range(4)]
    for file in files:
        file.write_text("x")
    sizes = []

    def parse(i):
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "c").iterdir()))
        return CLOUD + i

    built = cached_array("train", tmp_path, files, {}, (4, 5_000, 3), parse, tmp_path / "c")
    assert all(size <= i * CLOUD.nbytes + 128 for i, size in enumerate(sizes))
    assert all(np.array_equal(built[i], CLOUD + i) for i in range(4))


def test_a_checkpoint_that_fits_again_is_written(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    with full_disk(), pytest.raises(OSError, match="too large"):
        save_checkpoint(path, {"step": 2, "w": torch.zeros(20_000)})
    save_checkpoint(path, {"step": 3, "w": torch.zeros(20_000)})
    assert load_checkpoint(path)["step"] == 3


def test_curves_are_whole_when_a_continuation_finds_no_room(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("step,loss\n" + "".join(f"{i},{1 / 3}\n" for i in range(1, 4_000)))
    before = path.read_bytes()
    assert len(before) > ROOM
    with full_disk(), pytest.raises(OSError, match="too large") as full:
        RunLog(tmp_path, step=3_900)
    assert sentence(full.value) == f"{path}: File too large."
    assert path.read_bytes() == before


def test_only_old_leftovers_of_that_very_file_are_removed(tmp_path):
    names = (".a[1].01234567.pt", ".a[1].89abcdef.pt", ".a1.01234567.pt", "a[1].01234567.pt", ".a[1].txt.pt")
    for name in names:
        (tmp_path / name).write_text("x")
        if name != names[1]:
            os.utime(tmp_path / name, (time.time() - 4000,) * 2)
    remove_leftovers(tmp_path / "a[1].pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
