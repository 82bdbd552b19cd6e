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

Floats = NDArray[np.float32]


class Facts(TypedDict, total=False):
    """What was asked for. `pdq`: 32 bytes; `pdq_quality`: 0…100; `sharpness`: see `sharpness`."""

    pdq: bytes
    pdq_quality: int
    colours: list[Colour]
    sharpness: float


def facts(image: Image.Image, wanted: Collection[str] = ALL_FACTS) -> Facts:
    """The `wanted` facts of an RGB picture."""
    # An exact integer box reduction: the filters below are box filters too, and need no more than 512 pixels.
    factor = max(image.size) // 512
    small = image.reduce(factor) if factor > 1 and min(image.size) > 64 * factor else image
    found: Facts = {}
    if "pdq" in wanted:
        found["pdq"], found["pdq_quality"] = pdq(small)
    if "colours" in wanted:
        found["colours"] = dominant_colours(small)
    if "sharpness" in wanted:
        found["sharpness"] = sharpness(small)
    return found


def pdq(image: Image.Image) -> tuple[bytes, int]:
    """(hash, quality) of an RGB picture: a perceptual hash of 256 bits, and the detail it stands on (0…100).

    Source: Meta, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm" (2019). The
    hash is in the byte order of the reference's hex text. Two pictures are alike from a Hamming distance
    of 31 downwards, and a quality below 50 is not to be matched.
    """
    luma = np.asarray(image.convert("F"))  # 0.299 R + 0.587 G + 0.114 B, unrounded
    height, width = luma.shape
    # Box filters and decimation are linear and separable, so that both axes are one small matrix each.
    block = _smooth_and_decimate(height) @ luma @ _smooth_and_decimate(width).T
    frequencies = _DCT @ block @ _DCT.T
    median = np.partition(frequencies, 127, axis=None)[127]  # of the two middle ones the lower, as the reference
    bits = (frequencies > median).ravel()[::-1]
    return np.packbits(bits).tobytes(), _pdq_quality(block)


def _pdq_quality(block: Floats) -> int:
    """Sum of the 64 × 64 block's gradients in whole percent, over 90, at most 100."""
    steps = [np.abs(np.trunc(np.diff(block, axis=axis) * np.float32(100 / 255))).sum() for axis in (0, 1)]
    return min(100, int(sum(steps) / 90))


@lru_cache(maxsize=512)
def _smooth_and_decimate(size: int) -> Floats:
    """(64, size): a box filter of `(size + 127) // 128` samples, twice, read at the middles of 64 stripes."""
    window = (size + 127) // 128
    at = np.arange(size)
    ahead = (window + 2) // 2
    low, high = np.maximum(at - (window - ahead), 0), np.minimum(at + ahead, size)
    inside = (at >= low[:, None]) & (at < high[:, None])
    box = inside / inside.sum(axis=1, keepdims=True)
    middles = ((np.arange(64) + 0.5) * size / 64).astype(int)
    return np.asarray(box[middles] @ box, dtype=np.float32)


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
    ratio = math.sqrt(image.width / image.height)
    size = (max(3, round(_SHARPNESS_SIDE * ratio)), max(3, round(_SHARPNESS_SIDE / ratio)))
    thumb = np.asarray(image.convert("L").resize(size, Image.Resampling.BILINEAR), dtype=np.int16)
    middle = thumb[1:-1, 1:-1]
    laplacian = thumb[:-2, 1:-1] + thumb[2:, 1:-1] + thumb[1:-1, :-2] + thumb[1:-1, 2:] - 4 * middle
    return round(float(laplacian.var(dtype=np.float32)), 2)
