"""Fixed colours of parts, which stay distinguishable with the common forms of colour blindness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Found by a search over sRGB for the eight colours that maximise the smallest CIEDE2000 difference between any two
# and to a white background, under normal vision and full protanopia, deuteranopia and tritanopia (simulated after
# Machado et al. 2009). It is at least 20 in each case; the palette of Okabe and Ito reaches 11. The most different
# colours come first, since most categories have two to four parts.
PALETTE = np.array(
    [
        (60, 45, 120),  # indigo
        (255, 195, 45),  # gold
        (60, 210, 255),  # sky
        (210, 0, 0),  # red
        (150, 165, 135),  # sage
        (105, 90, 255),  # periwinkle
        (105, 30, 45),  # wine
        (120, 105, 120),  # slate
    ],
    dtype=np.uint8,
)
CORRECT = np.array((205, 205, 205), dtype=np.uint8)
WRONG = np.array((190, 0, 0), dtype=np.uint8)
PLAIN = np.array((110, 120, 135), dtype=np.uint8)


def part_colors(parts: Sequence[str]) -> np.ndarray:
    """Assign each part a colour by its position within its class.

    Part ``i`` of a class has the same colour in every picture, whatever the model and the parts that occur. Colours
    repeat from the ninth part of a class on.

    Args:
        parts: part names ``"class/part"``. Names without a class are taken as one class.

    Returns:
        ``(P, 3)`` uint8, red, green, blue.
    """
    seen: dict[str, int] = {}
    places = []
    for name in parts:
        group = name.rpartition("/")[0]
        places.append(seen.get(group, 0))
        seen[group] = places[-1] + 1
    return PALETTE[np.array(places, dtype=np.int64) % len(PALETTE)]


def error_colors(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return colours ``(N, 3)`` uint8 for labels ``(N,)``: dark red where wrong, light grey where correct."""
    return np.where((labels == truth)[:, None], CORRECT, WRONG)


def ramp_colors(values: np.ndarray) -> np.ndarray:
    """Map values ``(N,)`` from 0 (pale) to 1 (dark) to a colour ramp of evenly decreasing lightness.

    Returns:
        ``(N, 3)`` uint8. Values outside [0, 1] are clipped.
    """
    import matplotlib

    # reversed, so that small values fade into the white background; without its palest tenth
    ramp = matplotlib.colormaps["magma_r"]
    return (ramp(0.1 + 0.9 * np.clip(values, 0, 1))[:, :3] * 255).round().astype(np.uint8)
