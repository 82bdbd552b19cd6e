"""Dominant colours of a picture under the names a shop uses. It knows nothing of garments or backgrounds."""

from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_THUMB: Final = 64
_CLUSTERS: Final = 16
_MERGE_BELOW: Final = 12.0  # CIE76 difference; about 2 is just noticeable
_LEAST_REST: Final = 0.005  # of the pixels, for which no further cluster is looked for
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
    # Of each cell of the thumb four pixels are enough: their mean is nearly that of all, at a fifth of the time.
    thumb = image.resize((2 * _THUMB,) * 2, Image.Resampling.NEAREST).reduce(2)
    rgb, share = _merged(*_clusters(np.asarray(thumb).reshape(-1, 3)))
    by_name: dict[str, tuple[NDArray[np.float64], float]] = {}
    for name, colour, part in zip(_names(to_lab(rgb)), rgb, share.tolist(), strict=True):
        seen, weight = by_name.get(name, (colour, 0.0))
        by_name[name] = ((seen * weight + colour * part) / (weight + part), weight + part)
    ranked = sorted(by_name.items(), key=lambda entry: -entry[1][1])[:_MOST_COLOURS]
    return [
        Colour(
            name=name,
            hex="#{:02x}{:02x}{:02x}".format(*(round(value) for value in colour.tolist())),
            share=round(part, 3),
        )
        for name, (colour, part) in ranked
        if part >= _LEAST_SHARE
    ]


def name_of(rgb: NDArray[np.float64]) -> str:
    """The table's nearest name in CIE Lab to one (3,) colour of 0…255."""
    return _names(to_lab(rgb[None]))[0]


def _names(lab: NDArray[np.float64]) -> list[str]:
    """The table's nearest name to each of (n, 3) colours."""
    return [_TABLE_NAMES[at] for at in _apart(lab, _TABLE_LAB).argmin(axis=1).tolist()]


def _apart(some: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3), (m, 3) → (n, m): squared CIE76 differences."""
    gaps: NDArray[np.float64] = some[:, None] - others[None]
    squares: NDArray[np.float64] = np.einsum("nmi,nmi->nm", gaps, gaps)
    return squares


def _clusters(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, 3) pixels → means and shares of few clusters: the commonest shade leads all within `_MERGE_BELOW` of it, the
    commonest of the rest leads the next, and so on; in the end each shade goes to the leader nearest to it."""
    coarse = (pixels >> 4).astype(np.intp)
    shade = coarse[:, 0] << 8 | coarse[:, 1] << 4 | coarse[:, 2]
    counts = np.bincount(shade, minlength=1 << 12)
    used = np.flatnonzero(counts)
    weight = counts[used].astype(np.float64)
    sums = [np.bincount(shade, pixels[:, channel], 1 << 12)[used] for channel in range(3)]
    rgb: NDArray[np.float64] = np.stack(sums, axis=1) / weight[:, None]
    lab = to_lab(rgb)
    leaderless = weight.copy()
    apart: list[NDArray[np.float64]] = []
    while len(apart) < _CLUSTERS and leaderless.sum() > _LEAST_REST * len(pixels):
        apart.append(_apart(lab[leaderless.argmax()][None], lab)[0])
        leaderless[apart[-1] < _MERGE_BELOW**2] = 0.0
    nearest = np.argmin(apart, axis=0)
    # None is empty: each leader is nearest to itself.
    counted = np.bincount(nearest, weight)
    means = np.stack([np.bincount(nearest, weight * rgb[:, channel]) for channel in range(3)], axis=1)
    return means / counted[:, None], counted / len(pixels)


def _merged(rgb: NDArray[np.float64], share: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Join the two nearest clusters until all are further apart than `_MERGE_BELOW`. (n, 3), (n,) → fewer.

    Clusters so near each other have the same mean in Lab and in RGB but for a hair: the Lab values are computed once.
    """
    means, share = np.hstack([rgb, to_lab(rgb)]), share.copy()
    apart = _apart(means[:, 3:], means[:, 3:])
    np.fill_diagonal(apart, np.inf)
    while len(share) > 1:
        one, other = divmod(int(apart.argmin()), len(share))
        if apart[one, other] > _MERGE_BELOW**2:
            break
        total = share[one] + share[other]
        means[one] = (means[one] * share[one] + means[other] * share[other]) / total
        share[one], share[other] = total, 0.0
        gaps = means[:, 3:] - means[one, 3:]
        gaps[share == 0.0] = gaps[one] = np.inf
        apart[one] = apart[:, one] = (gaps * gaps).sum(axis=1)
        apart[other] = apart[:, other] = np.inf
    left = share > 0.0
    return means[left, :3], share[left]


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
