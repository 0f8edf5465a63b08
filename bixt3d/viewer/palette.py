"""The colours of parts: fixed, and told apart with any of the common forms of colour blindness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Found by a search over sRGB for eight colours whose smallest CIEDE2000 difference is largest, under
# normal vision and full protanopia, deuteranopia and tritanopia (simulated after Machado et al. 2009), also
# against a white background: at least 20 in each case, where the palette of Okabe and Ito comes to 11. The
# order puts the most different first, since most categories have two to four parts.
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
    """Give each part the colour of its place within its class.

    Part ``i`` of a class has the same colour in every picture, whatever the model and whichever parts
    occur. From the ninth part of one class on, the colours repeat.

    Args:
        parts: part names ``"class/part"``; names without a class count as of one class.

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
    """Colour wrong points dark red and correct ones light grey: ``(N, 3)`` uint8 for labels ``(N,)``."""
    return np.where((labels == truth)[:, None], CORRECT, WRONG)


def ramp_colors(values: np.ndarray) -> np.ndarray:
    """Colour numbers from 0 (pale) to 1 (dark), ``(N,)``, by a ramp that grows evenly darker.

    Returns:
        ``(N, 3)`` uint8; values outside [0, 1] take the colour of the nearer end.
    """
    import matplotlib

    # reversed, so that what is small fades into the white background; its palest tenth is left out
    ramp = matplotlib.colormaps["magma_r"]
    return (ramp(0.1 + 0.9 * np.clip(values, 0, 1))[:, :3] * 255).round().astype(np.uint8)
