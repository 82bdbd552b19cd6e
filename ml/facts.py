"""Facts about a picture that need no model: PDQ hash, named colours, sharpness. It opens no file."""

import math
from collections.abc import Collection
from functools import lru_cache
from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ml.colours import Colour, dominant_colours

ALL_FACTS: Final = ("pdq", "colours", "sharpness")
_SHARPNESS_SIDE: Final = 256
_STRIPES: Final = np.arange(64)

Floats = NDArray[np.float32]


class Facts(TypedDict, total=False):
    """What was asked for. `pdq`: 32 bytes; `pdq_quality`: 0…100; `sharpness`: see `sharpness`."""

    pdq: bytes
    pdq_quality: int
    colours: list[Colour]
    sharpness: float


def facts(image: Image.Image, wanted: Collection[str] = ALL_FACTS) -> Facts:
    """The `wanted` facts of an RGB picture."""
    found: Facts = {}
    if "colours" in wanted:
        found["colours"] = dominant_colours(image)
    if "pdq" in wanted or "sharpness" in wanted:
        luma = image.convert("L")
        if "pdq" in wanted:
            found["pdq"], found["pdq_quality"] = _pdq_of_luma(luma, _fold(luma, 256))
        if "sharpness" in wanted:
            # Enough is left for a thumb of half the side.
            found["sharpness"] = _sharpness_of_luma(_reduced(luma, _fold(luma, 512)))
    return found


def _fold(luma: Image.Image, side: int) -> int:
    """By how much the picture can be reduced without its longer side falling below `side`, or any below 64."""
    return max(1, min(max(luma.size) // side, (min(luma.size) - 1) // 64))


def _reduced(luma: Image.Image, fold: int) -> Image.Image:
    return luma.reduce(fold) if fold > 1 else luma


def pdq(image: Image.Image) -> tuple[bytes, int]:
    """(hash, quality) of an RGB picture: a perceptual hash of 256 bits, and the detail it stands on (0…100).

    Source: Meta, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm" (2019). The
    hash is in the byte order of the reference's hex text. Two pictures are alike from a Hamming distance
    of 31 downwards, and a quality below 50 is not to be matched.
    """
    return _hashed(np.asarray(image.convert("F")), 1, image.size)  # 0.299 R + 0.587 G + 0.114 B, unrounded


def _pdq_of_luma(luma: Image.Image, fold: int) -> tuple[bytes, int]:
    """The same of 8-bit luma, of which `fold` × `fold` pixels at a time are taken for their mean.

    The hash keeps only waves 16 times as long as that, so that few bits differ: 1.4 of 256 on phone photos, 10 at most.
    """
    return _hashed(np.asarray(_reduced(luma, fold), dtype=np.float32), fold, luma.size)


def _hashed(luma: Floats, fold: int, size: tuple[int, int]) -> tuple[bytes, int]:
    """`size`: (width, height) before pixels were folded."""
    # Box filters and decimation are linear and separable, so that both axes are one small matrix each.
    block = np.asarray(_smooth_and_decimate(size[1], fold) @ luma @ _smooth_and_decimate(size[0], fold).T, np.float32)
    frequencies = _DCT @ block @ _DCT.T
    median = np.partition(frequencies, 127, axis=None)[127]  # of the two middle ones the lower, as the reference
    bits = (frequencies > median).ravel()[::-1]
    return np.packbits(bits).tobytes(), _pdq_quality(block)


def _pdq_quality(block: Floats) -> int:
    """Sum of the 64 × 64 block's gradients in whole percent, over 90, at most 100."""
    steps = [np.abs(np.trunc(np.diff(block, axis=axis) * np.float32(100 / 255))).sum() for axis in (0, 1)]
    return min(100, int(sum(steps) / 90))


@lru_cache(maxsize=512)
def _smooth_and_decimate(size: int, fold: int) -> Floats:
    """(64, size / fold): a box filter of `(size + 127) // 128` samples, twice, read at the middles of 64 stripes; for
    samples of which every `fold` are given as their mean."""
    window = (size + 127) // 128
    at = np.arange(size)
    ahead = (window + 2) // 2
    low, high = np.maximum(at - (window - ahead), 0), np.minimum(at + ahead, size)
    part = 1 / (high - low)
    middles = ((np.arange(64) + 0.5) * size / 64).astype(int)
    # A sum of boxes as the steps at their ends: the whole (size, size) filter would cost more than a hundred pictures.
    steps = np.zeros((64, size + 1))
    for offset in range(window):
        inner = low[middles] + offset
        weight = part[middles] * part[np.minimum(inner, size - 1)] * (inner < high[middles])
        inner = np.minimum(inner, size - 1)
        steps[_STRIPES, low[inner]] += weight
        steps[_STRIPES, high[inner]] -= weight
    weights = np.add.reduceat(steps.cumsum(axis=1)[:, :size], at[::fold], axis=1)
    return np.asarray(weights, dtype=np.float32)


def _dct_rows() -> Floats:
    """(16, 64): the DCT-II's rows 1…16; the constant row is left out, so that brightness does not count."""
    rows, columns = np.arange(1, 17)[:, None], np.arange(64)[None, :]
    return np.asarray(math.sqrt(2 / 64) * np.cos(math.pi / 128 * rows * (2 * columns + 1)), dtype=np.float32)


_DCT: Final = _dct_rows()


def hamming(a: bytes, b: bytes) -> int:
    """Number of differing bits of two hashes of one length."""
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count()


def sharpness(image: Image.Image) -> float:
    """Variance of the 4-neighbour Laplacian of 8-bit luma, in squared grey levels, on a thumb of about 256².

    The thumb keeps the proportions and has a fixed area, so that pictures of any size compare. On phone
    photos of clothes a blurred one had 26, sharp ones 140 to 1900 (more with more texture). A picture
    smaller than the thumb is enlarged, and so counts as soft.
    """
    return _sharpness_of_luma(image.convert("L"))


def _sharpness_of_luma(luma: Image.Image) -> float:
    ratio = math.sqrt(luma.width / luma.height)
    size = (max(3, round(_SHARPNESS_SIDE * ratio)), max(3, round(_SHARPNESS_SIDE / ratio)))
    thumb = np.asarray(luma.resize(size, Image.Resampling.BILINEAR), dtype=np.int16)
    laplacian = thumb[:-2, 1:-1] + thumb[2:, 1:-1]
    laplacian += thumb[1:-1, :-2]
    laplacian += thumb[1:-1, 2:]
    laplacian -= 4 * thumb[1:-1, 1:-1]
    values = laplacian.ravel().astype(np.float32)
    values -= values.mean()
    return round(float(values @ values) / values.size, 2)
