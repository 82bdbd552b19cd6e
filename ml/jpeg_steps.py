"""How coarse a JPEG is: its quality and chroma sampling, for encoding the same pixels again at hardly any loss.

Pixels that were rounded to a grid once fall on it again: a working copy with the original's own steps is closer to the
original than one with finer steps, half as large, and cheaper to encode and to decode.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Final

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

_LEAST_QUALITY: Final = 50
# Sampling factors of the three components → Pillow's name of that subsampling.
_SUBSAMPLING: Final[dict[tuple[tuple[int, int], ...], int]] = {
    ((1, 1), (1, 1), (1, 1)): 0,
    ((2, 1), (1, 1), (1, 1)): 1,
    ((2, 2), (1, 1), (1, 1)): 2,
}


@dataclass(frozen=True)
class Steps:
    """`quality`: of libjpeg's own tables; None for others. `subsampling`: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0."""

    quality: int | None
    subsampling: int


def steps_of(opened: JpegImageFile) -> Steps | None:
    """The steps of an opened file; None where they are not those of a common colour JPEG.

    Two small numbers of a fixed range are all that comes of its headers.
    """
    sampling = tuple((layer[1], layer[2]) for layer in opened.layer)
    tables = opened.quantization
    subsampling = _SUBSAMPLING.get(sampling)
    if subsampling is None or opened.mode != "RGB":
        return None
    return Steps(_qualities().get((tuple(tables.get(0, ())), tuple(tables.get(1, ())))), subsampling)


@lru_cache(maxsize=1)
def _qualities() -> dict[tuple[tuple[int, ...], tuple[int, ...]], int]:
    """libjpeg's two quantisation tables (luma, chroma) → their quality."""
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", quality=50)
    with JpegImageFile(BytesIO(out.getvalue())) as sample:
        luma, chroma = sample.quantization[0], sample.quantization[1]
    return {
        (_scaled(luma, 200 - 2 * quality), _scaled(chroma, 200 - 2 * quality)): quality
        for quality in range(_LEAST_QUALITY, 101)
    }


def _scaled(table: list[int], percent: int) -> tuple[int, ...]:
    return tuple(min(255, max(1, (step * percent + 50) // 100)) for step in table)
