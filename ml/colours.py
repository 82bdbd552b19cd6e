"""Dominant colours of a picture under the names a shop uses. It knows nothing of garments or backgrounds."""

from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_THUMB: Final = 64
_CLUSTERS: Final = 16
_MERGE_BELOW: Final = 12.0  # CIE76 difference; about 2 is just noticeable
_LEAST_SHARE: Final = 0.03
_MOST_COLOURS: Final = 6

# name → hex values that bear it; several where one word covers a wide range.
NAMES: Final[dict[str, tuple[str, ...]]] = {
    "black": ("000000", "1c1c1c"),
    "charcoal": ("3a3c40", "4b4d50"),
    "grey": ("6e6e6e", "8c8c8c", "9a9a9a"),
    "silver": ("b4b6b8", "cdcfd1"),
    "white": ("ffffff", "f0f0f0", "e4e5e6"),
    "ivory": ("fffff0", "f6f1df"),
    "cream": ("f5e9c8", "fbedc4"),
    "beige": ("dfcfb4", "cdbb9e", "e3d8c8"),
    "tan": ("d2a878", "bf9a6b"),
    "taupe": ("8f8376", "a89a8c"),
    "khaki": ("a89f6c", "bdb387"),
    "olive": ("6b6b2e", "55562c"),
    "brown": ("7a4b2a", "8b5e3c"),
    "chocolate": ("45291a", "33221a"),
    "rust": ("a5451f",),
    "maroon": ("6a1220", "4a0f18"),
    "burgundy": ("7d1f3a",),
    "red": ("c8102e", "e02020", "b01c1c"),
    "coral": ("ff7058", "ee8070"),
    "orange": ("ff8000", "ea6a14"),
    "dusty pink": ("c4a0a0", "b98a8a"),
    "peach": ("ffcba4", "f3b894"),
    "mustard": ("c8961e", "d4a72c"),
    "gold": ("e0b040",),
    "yellow": ("ffe000", "f5e050"),
    "lime": ("a8dc28", "84e000"),
    "green": ("2a8a3a", "18a018", "3f7d3f"),
    "dark green": ("17402a", "24492f"),
    "sage": ("9caf88", "8a9a7b"),
    "mint": ("a8e6c8", "b8f0d8"),
    "teal": ("0f7a7a", "1f5f66"),
    "turquoise": ("30d0c8", "40c0c8"),
    "light blue": ("a8ccec", "c2d8ea", "8fb8de"),
    "sky blue": ("5ab0e8",),
    "blue": ("1f5fd0", "2040e0", "3a6ea8"),
    "denim": ("4a6080", "5f7a9a"),
    "navy": ("14204a", "1c2438", "0a1030"),
    "purple": ("6a2a90", "502878"),
    "lavender": ("c0b0e0", "d6cdea"),
    "magenta": ("d018a0", "b8207a"),
    "pink": ("f4a8c0", "f8ccd8", "e888a8"),
    "hot pink": ("f0408c",),
}


class Colour(TypedDict):
    """`hex`: "#rrggbb", the mean of the pixels meant; `share`: their part of the picture, 0…1."""

    name: str
    hex: str
    share: float


def dominant_colours(image: Image.Image) -> list[Colour]:
    """Up to six named colours of an RGB picture, greatest share first; shades under one name are one colour.

    Shares below 3 % are left out, so that they need not add up to 1.
    """
    thumb = image.resize((_THUMB, _THUMB), Image.Resampling.BOX)
    indexed = thumb.quantize(_CLUSTERS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    labels = np.asarray(indexed).ravel()
    counts = np.bincount(labels, minlength=256)
    used = np.flatnonzero(counts)
    pixels = np.asarray(thumb, dtype=np.float64).reshape(-1, 3)
    means = np.stack([np.bincount(labels, pixels[:, channel], 256) for channel in range(3)], axis=1)
    rgb, share = _merged(means[used] / counts[used, None], counts[used] / labels.size)
    by_name: dict[str, tuple[NDArray[np.float64], float]] = {}
    for colour, part in zip(rgb, share, strict=True):
        name = name_of(colour)
        seen, weight = by_name.get(name, (colour, 0.0))
        by_name[name] = ((seen * weight + colour * part) / (weight + part), weight + float(part))
    ranked = sorted(by_name.items(), key=lambda entry: -entry[1][1])[:_MOST_COLOURS]
    return [
        Colour(
            name=name,
            hex="#{:02x}{:02x}{:02x}".format(*(round(float(value)) for value in colour)),
            share=round(part, 3),
        )
        for name, (colour, part) in ranked
        if part >= _LEAST_SHARE
    ]


def name_of(rgb: NDArray[np.float64]) -> str:
    """The table's nearest name in CIE Lab to one (3,) colour of 0…255."""
    return _TABLE_NAMES[int(((_TABLE_LAB - to_lab(rgb[None])) ** 2).sum(axis=1).argmin())]


def _merged(rgb: NDArray[np.float64], share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Join the two nearest clusters until all are further apart than `_MERGE_BELOW`. (n, 3), (n,) → fewer."""
    rgb, share = rgb.copy(), share.copy()
    while len(share) > 1:
        lab = to_lab(rgb)
        apart = np.sqrt(((lab[:, None] - lab[None]) ** 2).sum(axis=2))
        np.fill_diagonal(apart, np.inf)
        one, other = divmod(int(apart.argmin()), len(share))
        if apart[one, other] > _MERGE_BELOW:
            break
        total = share[one] + share[other]
        rgb[one] = (rgb[one] * share[one] + rgb[other] * share[other]) / total
        share[one] = total
        rgb, share = np.delete(rgb, other, axis=0), np.delete(share, other)
    return rgb, share


def to_lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB (n, 3) of 0…255 → CIE Lab under D65 (IEC 61966-2-1, CIE 15)."""
    unit = rgb / 255.0
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _RGB_TO_XYZ.T / _WHITE
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


_RGB_TO_XYZ: Final = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE: Final = np.array([0.95047, 1.0, 1.08883])
_TABLE_NAMES: Final = [name for name, values in NAMES.items() for _ in values]
_TABLE_LAB: Final = to_lab(
    np.array([list(bytes.fromhex(value)) for values in NAMES.values() for value in values], dtype=np.float64)
)
