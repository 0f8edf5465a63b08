"""Download and unpack archives: mirrors tried in order, checksums, resumed transfers."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bixt3d.io.writing import naming

CHUNK = 1 << 16  # bytes; an interrupted transfer loses at most this much
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # error numbers of a full disk or an exhausted quota


@dataclass(frozen=True)
class Mirror:
    """One address of an archive.

    The checksum belongs to the address, since mirrors may have repacked the same files.

    Args:
        url: address, which ends in the file name of the archive.
        checksum: ``"md5:..."`` or ``"sha256:..."`` of the archive; None if none is published.
    """

    url: str
    checksum: str | None = None


@dataclass(frozen=True)
class RemoteArchive:
    """A published archive that unpacks into one folder.

    Args:
        folder: name of the unpacked folder.
        mirrors: addresses, tried in order.
        size: size of the download, as text such as ``"435 MB"``.
        members: published checksums of files in the folder, by file name.
    """

    folder: str
    mirrors: tuple[Mirror, ...]
    size: str = "unknown size"
    members: dict[str, str] = field(default_factory=dict)


def fetch_archive(
    archive: RemoteArchive, root: Path, verify: Callable[[Path], None], *, timeout: float = 30.0
) -> Path:
    """Download an archive, check it, and unpack it to ``root / archive.folder``.

    The mirrors are tried in order until one delivers an archive with the right checksum and with content that passes
    ``verify``. The next call resumes an interrupted download if the server supports it. The folder gets its final
    name only when it is complete.

    Args:
        archive: the archive to fetch.
        root: parent of the folder, created if it does not exist.
        verify: called with the unpacked folder; raises RuntimeError or FileNotFoundError to reject it.
        timeout: seconds to wait for a response before giving up on a mirror.

    Returns:
        The path of the folder.

    Raises:
        RuntimeError: every mirror failed; the message gives each reason.
        ValueError: the folder already exists.
        OSError: the disk is full; the error names the path that could not be written.
    """
    import requests

    target = root / archive.folder
    if target.exists():
        raise ValueError(f"{target}: exists already; check it with --check, or remove it to fetch it anew.")
    root.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in archive.mirrors:
        try:
            packed = download(mirror, root, timeout=timeout)
            try:
                _unpack(packed, target, verify)
            finally:
                packed.unlink()  # unpacked or useless
            return target
        except (requests.RequestException, RuntimeError, FileNotFoundError, ValueError) as error:
            failures.append(f"{mirror.url}: {error}")
    raise RuntimeError(f"{target}: every mirror failed. " + " | ".join(failures))


def download(mirror: Mirror, folder: Path, *, timeout: float = 30.0) -> Path:
    """Download one file into ``folder``, resuming an earlier, interrupted download.

    Returns:
        The path of the complete, checked file.

    Raises:
        requests.RequestException: the server cannot be reached or refuses the request.
        OSError: the disk is full; the part already downloaded is kept.
        RuntimeError: the file does not have the announced length, or its checksum is wrong.
    """
    name = mirror.url.split("?")[0].rsplit("/", 1)[-1]
    # the address is part of the name, so that bytes of two mirrors are never joined into one file
    part = folder / f"{name}.{hashlib.sha256(mirror.url.encode()).hexdigest()[:8]}.part"
    _transfer(mirror.url, part, timeout)
    if mirror.checksum is not None:
        try:
            check_file(part, mirror.checksum)
        except RuntimeError:
            part.unlink()  # resuming would keep the damaged part
            raise
    target = folder / name
    os.replace(part, target)
    return target


def check_file(path: Path, checksum: str) -> None:
    """Raise RuntimeError, naming both checksums, if that of a file is not ``"algorithm:hexdigest"``."""
    import pooch

    algorithm, expected = checksum.split(":")
    actual = pooch.file_hash(str(path), alg=algorithm)
    if actual != expected:
        raise RuntimeError(f"{path}: expected {algorithm} {expected}, got {actual}; fetch it again.")


def _transfer(url: str, part: Path, timeout: float) -> None:
    import requests
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    have = part.stat().st_size if part.exists() else 0
    # no compression, with which the announced length would not be that of the file
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
        if have and answer.status_code == 416:
            if answer.headers.get("Content-Range") != f"bytes */{have}":
                part.unlink()
                _transfer(url, part, timeout)
            return  # otherwise an earlier call downloaded all of it, but was stopped before the file was renamed
        answer.raise_for_status()
        if answer.status_code != 206:  # the server sends the whole file, so start over
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with (
            Progress(*columns, console=Console(stderr=True), transient=True) as progress,
            part.open("ab" if have else "wb") as out,
        ):
            bar = progress.add_task(part.name.rsplit(".", 2)[0], total=total, completed=have)
            for chunk in answer.iter_content(CHUNK):
                with naming(part):
                    out.write(chunk)
                progress.update(bar, advance=len(chunk))
    if total is not None and part.stat().st_size != total:
        raise RuntimeError(
            f"{part}: expected {total} bytes, got {part.stat().st_size}; run the command again to resume."
        )


def _unpack(packed: Path, target: Path, verify: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as temporary:
        folder = Path(temporary) / "content"
        folder.mkdir()
        extract(packed, folder)
        if (folder / target.name).is_dir():  # some archives contain the folder, some only its content
            folder /= target.name
        shutil.rmtree(folder / "__MACOSX", ignore_errors=True)
        verify(folder)
        os.replace(folder, target)


def extract(packed: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into ``folder``; its members must be plain files and folders.

    Raises:
        RuntimeError: the file is not an archive or is damaged, or a member is a link or would be written outside
            ``folder``. In the last two cases nothing is written.
        OSError: the disk is full.
    """
    try:
        with _open_archive(packed) as archive:
            home = folder.resolve()
            for name in _names(packed, archive):
                if not (home / name).resolve().is_relative_to(home):
                    raise RuntimeError(
                        f"{packed}: member {name!r} would be written outside the folder; refusing it."
                    )
            if isinstance(archive, tarfile.TarFile) and hasattr(tarfile, "data_filter"):
                archive.extraction_filter = tarfile.data_filter  # Python 3.10.12, 3.11.4 and later
            archive.extractall(home)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in FULL:  # another mirror would not help
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise RuntimeError(f"{packed}: the archive cannot be unpacked: {error}; fetch it again.") from error


def _open_archive(packed: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(packed):
        return zipfile.ZipFile(packed)
    if tarfile.is_tarfile(packed):
        return tarfile.open(packed)
    raise RuntimeError(f"{packed}: expected a zip or tar archive, got something else; fetch it again.")


def _names(packed: Path, archive: zipfile.ZipFile | tarfile.TarFile) -> list[str]:
    """List the members; rejects links and devices in tar archives (links in zip archives unpack as plain files)."""
    if isinstance(archive, zipfile.ZipFile):
        return archive.namelist()
    for member in archive.getmembers():
        if not (member.isfile() or member.isdir()):
            raise RuntimeError(f"{packed}: member {member.name!r} is a link or a device; refusing it.")
    return archive.getnames()
