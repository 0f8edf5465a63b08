import gzip
import hashlib
import io
import random
import socket
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bixt3d.datasets.files import Mirror, RemoteArchive, check_file, download, extract, fetch_archive


def zip_bytes(members, compression=zipfile.ZIP_STORED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tar_bytes(members, links=()):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return packed.getvalue()


MEMBERS = {"set/a.txt": b"hello", "set/sub/b.txt": b"world" * 40_000}
GOOD = zip_bytes(MEMBERS)
MD5 = "md5:" + hashlib.md5(GOOD).hexdigest()


class Server:
    """Serve bytes by path on 127.0.0.1; ``ranges`` turns resuming on, ``cut`` breaks off early."""

    def __init__(self):
        self.content, self.requests, self.ranges, self.cut = {}, [], True, None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                outer.requests.append((self.path, asked))
                if self.path.startswith("/squeezed/") and "gzip" in self.headers.get("Accept-Encoding", ""):
                    body = gzip.compress(outer.content[self.path])
                    self.send_response(200)
                    self.send_header("Content-Encoding", "gzip")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                if self.path not in outer.content:
                    self.send_error(404)
                    return
                body, start = outer.content[self.path], 0
                if asked and outer.ranges:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    if start >= len(body):
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{len(body)}")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                self.wfile.write(body[start : outer.cut] if outer.cut else body[start:])

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.http.server_port}/{name}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    server.content["/set.zip"] = GOOD
    yield server
    server.http.shutdown()
    server.http.server_close()


def accept(folder):
    assert (folder / "a.txt").read_bytes() == b"hello"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_dead_and_wrong_mirrors_are_passed_over(server, tmp_path):
    server.content["/wrong/set.zip"] = zip_bytes({"set/a.txt": b"other"})
    server.content["/page/set.zip"] = b"<html>We have moved</html>"
    archive = RemoteArchive(
        "set",
        (
            Mirror("http://127.0.0.1:9/set.zip"),  # nobody listens
            Mirror(server.url("gone/set.zip")),
            Mirror(server.url("wrong/set.zip"), MD5),
            Mirror(server.url("page/set.zip")),
            Mirror(server.url("set.zip"), MD5),
        ),
    )
    folder = fetch_archive(archive, tmp_path / "data", accept)
    assert (folder / "sub" / "b.txt").read_bytes() == MEMBERS["set/sub/b.txt"]
    assert names(tmp_path / "data") == ["set"]  # no archive, no part, no temporary folder stays
    with pytest.raises(ValueError, match="exists already"):
        fetch_archive(archive, tmp_path / "data", accept)


def test_when_all_fail_each_reason_is_given(server, tmp_path):
    mirrors = (Mirror(server.url("gone.zip")), Mirror(server.url("set.zip"), "md5:" + "0" * 32))
    with pytest.raises(RuntimeError, match=rf"404.*expected md5 0+, got {MD5[4:]}"):
        fetch_archive(RemoteArchive("set", mirrors), tmp_path, accept)
    assert names(tmp_path) == []


def test_content_that_fails_the_check_never_gets_the_name(server, tmp_path):
    def reject(folder):
        raise RuntimeError("two shapes are missing")

    with pytest.raises(RuntimeError, match="two shapes are missing"):
        fetch_archive(RemoteArchive("set", (Mirror(server.url("set.zip")),)), tmp_path, reject)
    assert names(tmp_path) == []


def test_an_interrupted_download_is_resumed(server, tmp_path):
    server.cut = 150_000
    archive = RemoteArchive("set", (Mirror(server.url("set.zip"), MD5),))
    with pytest.raises(RuntimeError, match="every mirror failed"):
        fetch_archive(archive, tmp_path, accept)
    (part,) = tmp_path.iterdir()
    have = part.stat().st_size
    assert 0 < have <= 150_000
    assert part.read_bytes() == GOOD[:have]
    server.cut = None
    fetch_archive(archive, tmp_path, accept)
    assert server.requests == [("/set.zip", None), ("/set.zip", f"bytes={have}-")]
    assert names(tmp_path) == ["set"]


def test_a_server_that_cannot_resume_starts_over(server, tmp_path):
    mirror = Mirror(server.url("set.zip"), MD5)
    server.cut, server.ranges = 150_000, False
    with pytest.raises((RuntimeError, OSError)):  # requests' own errors are OSErrors
        download(mirror, tmp_path)
    server.cut = None
    assert download(mirror, tmp_path).read_bytes() == GOOD


def test_a_server_that_would_compress_is_asked_not_to(server, tmp_path):
    server.content["/squeezed/set.zip"] = GOOD
    assert download(Mirror(server.url("squeezed/set.zip"), MD5), tmp_path).read_bytes() == GOOD


def test_what_follows_a_question_mark_is_no_part_of_the_name(server, tmp_path):
    server.content["/set.zip?download=1/x"] = GOOD
    mirror = Mirror(server.url("set.zip?download=1/x"), MD5)
    assert download(mirror, tmp_path) == tmp_path / "set.zip"


def test_a_mirror_that_never_answers_is_given_up(server, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        closing = threading.Timer(10, silent.close)
        closing.daemon = True
        closing.start()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/set.zip"
        archive = RemoteArchive("set", (Mirror(address), Mirror(server.url("set.zip"), MD5)))
        start = time.monotonic()
        assert names(fetch_archive(archive, tmp_path / "data", accept, timeout=0.2)) == ["a.txt", "sub"]
        assert time.monotonic() - start < 8


@pytest.mark.parametrize("left_over", [GOOD, GOOD + b"more than there is"])
def test_a_part_as_long_as_the_file_or_longer(server, tmp_path, left_over):
    mirror = Mirror(server.url("set.zip"), MD5)
    part = tmp_path / f"set.zip.{hashlib.sha256(mirror.url.encode()).hexdigest()[:8]}.part"
    part.write_bytes(left_over)
    assert download(mirror, tmp_path).read_bytes() == GOOD


def test_a_damaged_part_is_not_resumed_for_ever(server, tmp_path):
    mirror = Mirror(server.url("set.zip"), MD5)
    part = tmp_path / f"set.zip.{hashlib.sha256(mirror.url.encode()).hexdigest()[:8]}.part"
    part.write_bytes(b"x" * 100)
    with pytest.raises(RuntimeError, match="expected md5"):
        download(mirror, tmp_path)
    assert download(mirror, tmp_path).read_bytes() == GOOD


def test_archives_without_a_folder_of_their_own(server, tmp_path):
    server.content["/flat.tar.gz"] = tar_bytes({"./a.txt": b"hello", "./sub/b.txt": b"w"})
    archive = RemoteArchive("set", (Mirror(server.url("flat.tar.gz")),))
    assert names(fetch_archive(archive, tmp_path, accept)) == ["a.txt", "sub"]


def test_what_a_mac_adds_to_an_archive_is_left_out(server, tmp_path):
    server.content["/mac.zip"] = zip_bytes({"a.txt": b"hello", "__MACOSX/._a.txt": b"x"})
    archive = RemoteArchive("set", (Mirror(server.url("mac.zip")),))
    assert names(fetch_archive(archive, tmp_path, accept)) == ["a.txt"]


@pytest.mark.parametrize(
    "packed",
    [
        zip_bytes({"fine.txt": b"x", "../evil.txt": b"x"}),
        zip_bytes({"fine.txt": b"x", "a/../../evil.txt": b"x"}),
        tar_bytes({"fine.txt": b"x", "../evil.txt": b"x"}),
        tar_bytes({"fine.txt": b"x", "/tmp/bixt3d_evil.txt": b"x"}),
        tar_bytes({"fine.txt": b"x"}, links=[("way_out", "/")]),
    ],
)
def test_no_member_may_leave_the_folder(tmp_path, packed):
    (tmp_path / "packed").write_bytes(packed)
    target = tmp_path / "in" / "target"
    target.mkdir(parents=True)
    with pytest.raises(RuntimeError, match="refusing it"):
        extract(tmp_path / "packed", target)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / "packed"]


@pytest.mark.parametrize("packed", [GOOD, tar_bytes(MEMBERS)])
def test_damaged_archives(tmp_path, packed):
    (tmp_path / "cut").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(RuntimeError, match=r"cut: "):
        extract(tmp_path / "cut", tmp_path / "target")
    (tmp_path / "whole").write_bytes(packed)
    extract(tmp_path / "whole", tmp_path / "target")
    assert (tmp_path / "target" / "set" / "sub" / "b.txt").read_bytes() == MEMBERS["set/sub/b.txt"]


def test_check_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    check_file(tmp_path / "a", "md5:900150983cd24fb0d6963f7d28e17f72")
    check_file(tmp_path / "a", "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(RuntimeError, match="expected md5 00, got 900150983cd24fb0"):
        check_file(tmp_path / "a", "md5:00")


@pytest.mark.parametrize("room", [100_000, 300_000])
def test_a_full_disk_is_said_at_once_and_not_taken_for_damage(server, tmp_path, room):
    """There is no room for the archive, or for what is in it; a limit on the size of files stands for the disk."""
    resource = pytest.importorskip("resource")
    noise = random.Random(0).randbytes(200_000)
    large = {"set/a.txt": noise, "set/b.txt": bytes(400_000)}
    server.content["/large.zip"] = zip_bytes(large, zipfile.ZIP_DEFLATED)
    archive = RemoteArchive("set", (Mirror(server.url("large.zip")), Mirror(server.url("set.zip"), MD5)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as full:
            fetch_archive(archive, tmp_path / "data", accept)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(full.value.filename).startswith(str(tmp_path / "data"))
    assert [name.rpartition(".")[2] for name in names(tmp_path / "data")] == (
        ["part"] if room < 200_000 else []
    )
