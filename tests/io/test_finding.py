import pytest

from bixt3d.io.finding import find_files


def test_find_files(tmp_path):
    for name in ("b/2.ply", "b/1.txt", "b/deep/3.npy", "a.off", "b/notes.md", "b/.hidden.ply"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    found = find_files([tmp_path / "a.off", tmp_path / "b", str(tmp_path / "b" / "*.ply")])
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "a.off",
        "b/1.txt",
        "b/2.ply",
        "b/deep/3.npy",
    ]
    with pytest.raises(ValueError, match=r"\*\.stl: nothing to read here"):
        find_files([str(tmp_path / "*.stl")])


def test_clouds_of_formats_that_are_not_read_are_counted(tmp_path, caplog):
    names = ("a.xyz", "b.fbx", "c/d.FBX", "c/e.e57", "notes.md", "picture.png")
    (tmp_path / "c").mkdir()
    for name in names[:1]:
        (tmp_path / name).write_text("0 0 0\n")
    assert len(find_files([tmp_path])) == 1
    assert not caplog.messages
    for name in names[1:]:
        (tmp_path / name).write_text("")
    found = find_files([tmp_path, tmp_path / "a.xyz", tmp_path])
    assert [path.name for path in found] == ["a.xyz"]
    assert caplog.messages == ["skipped 3 files of other formats: .fbx (2), .e57 (1)"]
    (tmp_path / "c" / "d.FBX").unlink()
    with pytest.raises(ValueError, match=r"nothing to read here \(skipped 1 file of .*: \.e57 \(1\)\); exp"):
        find_files([tmp_path / "c"])
    (tmp_path / "d").mkdir()
    with pytest.raises(ValueError, match=r"d: nothing to read here; expected"):
        find_files([tmp_path, tmp_path / "d"])


def test_a_file_is_found_once_whatever_its_path_and_folders_may_be_links(tmp_path, monkeypatch):
    (tmp_path / "in" / "real").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    for name in ("in/a.xyz", "in/real/b.xyz", "far/c.xyz"):
        (tmp_path / name).write_text("0 0 0\n")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "real" / "loop").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    named = [str(p) for p in find_files(["in/a.xyz", tmp_path / "in" / "a.xyz", "in/../in/a.xyz"])]
    assert named == ["in/a.xyz"]
    assert len(find_files(["in/**/*.xyz"])) == 3
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "real")
    assert [str(p) for p in find_files(["in"])] == ["in/a.xyz", "in/link/c.xyz", "in/real/b.xyz"]
