import numpy as np
import pytest

from bixt3d.viewer.palette import CORRECT, PALETTE, WRONG, error_colors, part_colors, ramp_colors

# Linear-light transforms of a full dichromacy: Machado, Oliveira and Fernandes 2009, table 1, severity 1.0.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(rgb, vision="normal"):
    """CIE L*a*b* (D65) of sRGB colours, 0 to 255, as seen with a kind of vision."""
    rgb = np.asarray(rgb) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ VISION[vision].T, 0, 1)
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.119192, 0.9503041],
    ]
    xyz = linear @ np.array(to_xyz).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(one, two):
    """CIE 142-2001, as set out by Sharma, Wu and Dalal 2005, for one pair of L*a*b* colours."""
    (l1, a1, b1), (l2, a2, b2) = one, two
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(c7 / (c7 + 25**7))
    a1, a2 = stretch * a1, stretch * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    dh = 0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    h = h1 + h2 if c1 * c2 == 0 else (h1 + dh / 2) % 360
    dl, dc, dh = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(dh / 2))
    lightness, c = (l1 + l2) / 2, (c1 + c2) / 2
    cos = lambda degrees: np.cos(np.radians(degrees))  # noqa: E731
    t = 1 - 0.17 * cos(h - 30) + 0.24 * cos(2 * h) + 0.32 * cos(3 * h + 6) - 0.2 * cos(4 * h - 63)
    sl = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    sc, sh = 1 + 0.045 * c, 1 + 0.015 * c * t
    turn = 60 * np.exp(-(((h - 275) / 25) ** 2))
    rt = -2 * np.sqrt(c**7 / (c**7 + 25**7)) * np.sin(np.radians(turn))
    return np.sqrt((dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rt * dc / sc * dh / sh)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [  # rows 1, 7, 17, 20 and 25 of the test data of Sharma et al.
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ],
)
def test_the_formula_gives_the_published_differences(one, two, expected):
    assert ciede2000(one, two) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("vision", sorted(VISION))
def test_colours_are_told_apart(vision):
    # 2.3 is just noticeable; 20 is told apart at a glance, also in single points
    seen = lab(PALETTE, vision)
    pairs = [ciede2000(seen[i], seen[j]) for i in range(len(seen)) for j in range(i)]
    assert min(pairs) >= 20
    white = lab([255, 255, 255], vision)
    assert min(ciede2000(color, white) for color in seen) >= 19
    assert ciede2000(lab(CORRECT, vision), lab(WRONG, vision)) >= 30


def test_a_part_keeps_its_colour_within_its_class():
    parts = ("chair/seat", "chair/back", "table/top", "table/leg", "table/drawer")
    assert np.array_equal(part_colors(parts), PALETTE[[0, 1, 0, 1, 2]])
    assert np.array_equal(part_colors(("head", "tail")), PALETTE[:2])
    many = part_colors([f"a/{i}" for i in range(10)])
    assert np.array_equal(many[8:], PALETTE[:2])


def test_error_and_ramp_colours():
    colors = error_colors(np.array([0, 1, 2]), np.array([0, 2, 2]))
    assert np.array_equal(colors, [CORRECT, WRONG, CORRECT])
    ramp = ramp_colors(np.linspace(0, 1, 20))
    assert ramp.dtype == np.uint8
    assert (np.diff(lab(ramp)[:, 0]) < 0).all()  # evenly darker
    assert np.array_equal(ramp_colors(np.array([-1.0, 7.0])), ramp[[0, -1]])
