import csv
import json
import os
import stat

import pytest

from bixt3d.writing import atomic_file, check_file, check_folder, write_csv, write_json, write_text


@pytest.mark.parametrize("durable", [False, True])
def test_an_error_leaves_the_old_file(tmp_path, durable):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_halfway():
        with atomic_file(path, durable=durable) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_place_whole_and_for_everyone(tmp_path, durable):
    path = tmp_path / "new" / "a.bin"
    with atomic_file(path, durable=durable) as temporary, temporary.open("wb") as file:
        file.write(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    assert list(path.parent.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_json_and_csv_are_read_back(tmp_path):
    write_json(tmp_path / "a.json", [{"name": "é", "p": 0.5}])
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [{"name": "é", "p": 0.5}]
    write_csv(tmp_path / "a.csv", [["a", "b"], [1, 'x, "y"'], ["", 2]])
    assert (tmp_path / "a.csv").read_text().splitlines() == ["a,b", '1,"x, ""y"""', ",2"]


def test_json_refuses_what_is_no_number_unless_asked(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"p": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"p": float("nan")}, allow_nan=True)
    assert json.loads((tmp_path / "a.json").read_text())["p"] != 0


def test_bytes_of_a_name_that_are_no_text_become_escapes(tmp_path):
    name = os.fsdecode(b"caf\xe9")  # as Linux hands over a Latin-1 name
    write_text(tmp_path / "a.txt", name)
    write_json(tmp_path / "a.json", [name])
    write_csv(tmp_path / "a.csv", [[name, "x"]])
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "caf\\udce9"
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [name]
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["caf\\udce9", "x"]]


def test_where_nothing_can_be_written_is_said_before(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is no folder"):
        check_folder(tmp_path / "file" / "below")
    with pytest.raises(ValueError, match="is a folder"):
        check_file(tmp_path)
    check_file(tmp_path / "not" / "yet" / "there.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
