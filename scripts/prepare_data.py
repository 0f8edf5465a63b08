"""Download a data set, or check one that is already there.

python scripts/prepare_data.py modelnet40                     # HDF5, xyz, 435 MB
python scripts/prepare_data.py modelnet40_normal_resampled    # text, xyz and normals, 1.6 GB
python scripts/prepare_data.py modelnet40 --check             # downloads nothing
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bixt3d.datasets.files import RemoteArchive, fetch_archive
from bixt3d.datasets.modelnet40 import find_modelnet40
from bixt3d.datasets.modelnet40_source import (
    MODELNET40,
    MODELNET40_NORMALS,
    check_content,
    check_members,
)
from bixt3d.errors import report_errors

ARCHIVES = {"modelnet40": MODELNET40, "modelnet40_normal_resampled": MODELNET40_NORMALS}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=sorted(ARCHIVES))
    parser.add_argument("--root", type=Path, default=Path("data"), help="parent folder (default: data)")
    parser.add_argument("--check", action="store_true", help="check an existing folder; download nothing")
    options = parser.parse_args(arguments)
    action = check if options.check else fetch
    report_errors(lambda: action(ARCHIVES[options.dataset], options.root))
    return 0


def fetch(archive: RemoteArchive, root: Path) -> None:
    print(
        f"Fetching {archive.folder} ({archive.size}) into {root / archive.folder}, "
        "from the first mirror that works:"
    )
    for mirror in archive.mirrors:
        print(f"  {mirror.url} ({mirror.checksum or 'no published checksum of the archive'})")

    def verify(folder: Path) -> None:
        check_content(folder)
        check_members(archive, folder)

    folder = fetch_archive(archive, root, verify)
    print(f"{folder}: complete. ModelNet is for academic research; see data/README.md.")


def check(archive: RemoteArchive, root: Path) -> None:
    folder, _ = find_modelnet40(root, normals=archive is MODELNET40_NORMALS)
    print(f"{folder}:")
    for fact in check_content(folder):
        print(f"  {fact}")
    if not archive.members:
        print("  no checksums of single files are published for this layout")
        return
    try:
        check_members(archive, folder)
    except (RuntimeError, FileNotFoundError) as difference:
        print(f"  not the published files: {difference}")
        print("  Usable, but say which files you used when you report results.")
    else:
        print(f"  the {len(archive.members)} published md5 sums match")


if __name__ == "__main__":
    sys.exit(main())
