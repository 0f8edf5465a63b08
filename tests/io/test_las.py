import io
import struct
import subprocess
import sys

import numpy as np
import pytest

from bixt3d.io import las, read_points

laspy = pytest.importorskip("laspy", reason="needs pip install -e '.[las]'")

NUMBERS = np.array([[123, -45678, 1], [0, 2_000_000_000, -7], [-2_000_000_000, 5, 99]])
SCALE, OFFSET = np.array([0.01, 0.001, 0.5]), np.array([500_000.0, 4_200_000.0, -100.0])
# worked out by hand
POINTS = [
    [500_001.23, 4_199_954.322, -99.5],
    [500_000.0, 6_200_000.0, -103.5],
    [-19_500_000.0, 4_200_000.005, -50.5],
]


def written_by_hand(kind, numbers=NUMBERS, *, scale=SCALE, offset=OFFSET, more=b"", color=(0, 0, 0)):
    """Write a file of format 0 (20 bytes a point, version 1.2) or 7 (36 bytes, version 1.4, red, green, blue)."""
    minor, length, size = (2, 227, 20) if kind == 0 else (4, 375, 36)
    size += len(more)
    header = struct.pack("<4sHH16sBB32s32sHH", b"LASF", 0, 0, bytes(16), 1, minor, b"", b"by hand", 1, 2026)
    header += struct.pack("<HIIBH", length, length, 0, kind, size)
    header += struct.pack("<I5I", len(numbers) if kind == 0 else 0, *(0,) * 5)
    header += struct.pack("<12d", *scale, *offset, *(0,) * 6)
    if kind == 7:
        header += struct.pack("<QQIQ15Q", 0, 0, 0, len(numbers), *(0,) * 15)
    rest = bytes(8) if kind == 0 else bytes(18) + struct.pack("<3H", *color)
    return header + b"".join(struct.pack("<3i", *map(int, row)) + rest + more for row in numbers)


def written_by_laspy(kind, numbers, *, packed):
    header = laspy.LasHeader(point_format=kind, version="1.4" if kind > 5 else "1.2")
    header.scales, header.offsets = SCALE, OFFSET
    cloud = laspy.LasData(header)
    cloud.X, cloud.Y, cloud.Z = numbers.T
    stream = io.BytesIO()
    cloud.write(stream, do_compress=packed)
    return stream.getvalue()


def many(count):
    return np.random.default_rng(0).integers(-(2**31), 2**31, size=(count, 3))


@pytest.mark.parametrize("kind", [0, 7])
@pytest.mark.parametrize("more", [b"", b"\xff" * 5])
def test_scale_and_offset_lose_no_digit(tmp_path, kind, more):
    (tmp_path / "a.LAS").write_bytes(written_by_hand(kind, more=more))
    cloud = read_points(tmp_path / "a.LAS")
    assert cloud.points.dtype == np.float64
    assert np.allclose(cloud.points, POINTS, rtol=0, atol=1e-8)
    assert not cloud.from_mesh
    assert cloud.normals is None
    assert np.allclose(cloud.turned("z").points[:, 1], [-99.5, -103.5, -50.5])


def test_colours_of_either_range_are_passed_over(tmp_path):
    for color in ((255, 12, 0), (65_535, 256, 3)):
        (tmp_path / "a.las").write_bytes(written_by_hand(7, color=color))
        assert np.allclose(read_points(tmp_path / "a.las").points, POINTS, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", [0, 3, 6, 8])
@pytest.mark.parametrize("packed", [False, True])
def test_more_chunks_than_one_come_in_order(tmp_path, monkeypatch, kind, packed):
    """The writer begins a chunk with every 50,000th point; chunks of the reader end elsewhere."""
    monkeypatch.setattr(las, "_AT_ONCE", 30_001)
    numbers = many(120_003)
    (tmp_path / "a.laz").write_bytes(written_by_laspy(kind, numbers, packed=packed))
    assert np.allclose(read_points(tmp_path / "a.laz").points, numbers * SCALE + OFFSET, rtol=1e-15, atol=0)


def test_a_table_of_chunks_whose_place_stands_at_the_end_is_found(tmp_path):
    content = bytearray(written_by_laspy(6, many(300), packed=True))
    start = struct.unpack_from("<I", content, 96)[0]
    table = content[start : start + 8]
    content[start : start + 8] = struct.pack("<q", -1)
    (tmp_path / "a.laz").write_bytes(content + table)
    assert np.allclose(read_points(tmp_path / "a.laz").points, many(300) * SCALE + OFFSET)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_without_points_is_refused(tmp_path, packed):
    (tmp_path / "a.laz").write_bytes(written_by_laspy(6, many(0), packed=packed))
    with pytest.raises(ValueError, match=r"a\.laz: has no points"):
        read_points(tmp_path / "a.laz")


def refused(path, content, words="truncated or damaged"):
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=rf"{path.name}: .*{words}") as caught:
        read_points(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [0, 7])
def test_a_file_cut_anywhere_is_refused(tmp_path, kind):
    content = written_by_hand(kind)
    for length in range(1, len(content)):
        refused(tmp_path / "a.las", content[:length])
    packed = written_by_laspy(kind, many(200), packed=True)
    for length in {*range(1, len(packed), 7), *range(len(packed) - 40, len(packed))}:
        refused(tmp_path / "a.laz", packed[:length])


def patched(content, place, form, number):
    content = bytearray(content)
    struct.pack_into(form, content, place, number)
    return bytes(content)


def test_a_header_that_lies_is_refused_at_once(tmp_path):
    """laspy would look for billions of records, and lazrs end the process for want of memory."""
    bare, packed = written_by_hand(0), written_by_laspy(0, many(200), packed=True)
    start = struct.unpack_from("<I", packed, 96)[0]
    table = struct.unpack_from("<q", packed, start)[0]
    for name, content in (("a.las", bare), ("a.laz", packed)):
        refused(tmp_path / name, patched(content, 100, "<I", 2**32 - 1), "no room for 4294967295 records")
        refused(tmp_path / name, patched(content, 96, "<I", 2**32 - 1), "no room for")
        refused(tmp_path / name, patched(content, 94, "<H", 9), "")
        refused(tmp_path / name, patched(content, 104, "<B", 63), "")
        refused(tmp_path / name, b"LASX" + content[4:], "expected a header that begins with LASF")
    refused(tmp_path / "a.las", patched(bare, 107, "<I", 2**32 - 1), "expected 4294967295 points .*, got 3")
    refused(
        tmp_path / "a.laz", patched(packed, table + 4, "<I", 2**32 - 1), "too small for 4294967295 chunks"
    )
    for place in (-2, 0, start, 2**62):
        refused(
            tmp_path / "a.laz", patched(packed, start, "<q", place), "ends before the table of its chunks"
        )


def test_what_is_refused_is_not_logged_as_well(tmp_path):
    packed = written_by_laspy(0, many(200), packed=True)
    (tmp_path / "a.laz").write_bytes(
        patched(packed, 227 + 54, "<H", 9)
    )  # the way of packing, which there is not
    code = (
        f"from bixt3d.io import read_points\ntry: read_points({str(tmp_path / 'a.laz')!r})\n"
        "except RuntimeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "a.laz: cannot be read as .laz" in done.stdout
    assert done.stderr == ""


@pytest.mark.filterwarnings("error")
def test_a_scale_that_is_no_number_is_refused(tmp_path):
    for scale in ((np.nan, 1, 1), (1, 1e308, 1)):
        (tmp_path / "a.las").write_bytes(written_by_hand(0, scale=scale))
        with pytest.raises(ValueError, match=r"a\.las: \d of 3 points have NaN or infinite"):
            read_points(tmp_path / "a.las")


@pytest.mark.parametrize("package", ["laspy", "lazrs"])
def test_missing_packages_are_named_with_the_extra(tmp_path, monkeypatch, package):
    (tmp_path / "a.laz").write_bytes(written_by_laspy(0, many(3), packed=True))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=r"needs laspy and lazrs: pip install 'laspy\[lazrs\]', or .*'\.\[las\]'"
    ):
        read_points(tmp_path / "a.laz")
