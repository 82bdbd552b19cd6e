"""Hostile bytes in, a plain RGB picture out: decoding under limits, and the working copy. Reads no file."""

import importlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ml.jpeg_steps import Steps, steps_of
from ml.magic import sniff, webp_size
from ml.pixels import flatten_to_rgb

__all__ = [
    *("FORMATS", "ImageError", "Limits", "Picture"),
    *("decode", "encode_working_copy", "read", "sniff", "working_copy"),
]

# Named, so that no plugin is imported later, when the sandbox has closed the file system.
_PLUGINS: Final = (
    *(AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin),
    *(PngImagePlugin, TiffImagePlugin, WebPImagePlugin, ImageCms),
)
Image.preinit()
# dav1d would start a thread per core inside a process that is one of a pool and may not start any.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF")

# What Pillow's parsers were seen to raise on broken files; anything else is a fault of ours and propagates.
_PARSER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,  # with NotImplementedError and RecursionError
    EOFError,
    ArithmeticError,  # OverflowError, ZeroDivisionError
    LookupError,  # KeyError, IndexError
    TypeError,
    AttributeError,
    AssertionError,
    BufferError,
    struct.error,
    zlib.error,
    ImageCms.PyCMSError,
)
_BOMB_IS_ERROR: Final = ("error", None, Image.DecompressionBombWarning, None, 0)
_NEARLY: Final = 1.25
_GAP: Final = 1.2  # 3 would be as good as without a reduction, but costs 2 to 4 times as much from 1000 pixels on
_ORIENTATION_TAG: Final = 0x0112
_QUARTER_TURNS: Final = (5, 6, 7, 8)
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(Exception):
    """These bytes give no picture. `code` is stable; `detail` is for people."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Limits:
    """What is decoded at all. `draft_short_side`: decode a JPEG much larger than this at a reduced scale."""

    max_bytes: int = 25 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 16_384
    heif: bool = False
    draft_short_side: int | None = None


@dataclass(frozen=True)
class Picture:
    """`image`: RGB, upright, no metadata, perhaps drafted. `width`, `height`: of the upright original.
    `steps`: those of a JPEG whose pixels are still on their grid."""

    image: Image.Image
    width: int
    height: int
    format: str
    steps: Steps | None = None


def decode(data: bytes, limits: Limits = Limits()) -> Image.Image:
    """The picture in `data` as RGB. Raises ImageError."""
    return read(data, limits).image


def read(data: bytes, limits: Limits = Limits()) -> Picture:
    """Decode the first frame: sniff → header → limits → pixels → upright → RGB on white. Raises ImageError.

    No pixel is allocated before the declared size has passed the limits.
    """
    declared = _allowed_format(data, limits)
    if declared == "WEBP" and (canvas := webp_size(data)):
        _check_size(*canvas, limits)  # Pillow allocates a WebP's canvas while opening it
    _refuse_bombs(limits)
    with _typed("too_many_pixels"):
        opened = Image.open(BytesIO(data), formats=[declared])
    _check_size(*opened.size, limits)
    width, height = opened.size
    with _typed("decompression_bomb"):
        if declared == "JPEG" and limits.draft_short_side:
            # Twice the wanted side is kept: the final resize makes the quality, not the DCT scaling.
            opened.draft(None, (2 * limits.draft_short_side,) * 2)
        opened.load()
    # A TIFF's orientation is applied by its plugin in load(), and gone from the tags after it.
    orientation = _orientation(opened)
    turn = _UPRIGHT.get(orientation)
    with _typed("decompression_bomb"):
        image = flatten_to_rgb(opened)
        image = image if turn is None else image.transpose(turn)
    image.info.clear()
    as_stored = declared == "JPEG" and turn is None and image.size == (width, height)
    if orientation in _QUARTER_TURNS:
        width, height = height, width
    return Picture(image, width, height, declared, _steps(opened) if as_stored else None)


def bounded(image: Image.Image, short_side: int) -> Image.Image:
    """`image` with its short side at most `short_side`, by Lanczos after a box reduction; never enlarged."""
    short = min(image.size)
    if short <= short_side:
        return image
    size = (
        max(1, round(image.width * short_side / short)),
        max(1, round(image.height * short_side / short)),
    )
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=_GAP)


def working_copy(picture: Picture, short_side: int = 384, quality: int = 90) -> bytes:
    """The JPEG that everything after ingest reads: RGB, short side bounded, no metadata, `quality` at most.

    A picture that is hardly larger than it may be keeps its pixels, and its own steps if it is a JPEG: to resize by a
    few per cent costs more than all else here, and blurs. Any other is resized, in 4:4:4.
    """
    small = picture.image if min(picture.image.size) <= _NEARLY * short_side else bounded(picture.image, short_side)
    if small is not picture.image or picture.steps is None:
        return _encoded(small, quality, subsampling=0)
    own = picture.steps.quality or quality
    return _encoded(small, min(own, quality), picture.steps.subsampling)


def encode_working_copy(image: Image.Image, short_side: int = 384, quality: int = 90) -> bytes:
    """A working copy of a picture that did not come through `read`: 4:4:4, the short side never above `short_side`."""
    return _encoded(bounded(image, short_side), quality, subsampling=0)


def _encoded(image: Image.Image, quality: int, subsampling: int) -> bytes:
    small = image if image.mode == "RGB" else flatten_to_rgb(image)
    if isinstance(small, ImageFile.ImageFile):
        # Pillow asks for the working directory to save one of these; in the sandbox nobody may.
        small = small.copy()
    small.info.clear()
    out = BytesIO()
    small.save(out, "JPEG", quality=quality, subsampling=subsampling)
    return out.getvalue()


def enable_heif() -> None:
    """Let Pillow read HEIC. Raises ImportError where pillow-heif is not installed."""
    importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)


def _allowed_format(data: bytes, limits: Limits) -> str:
    if not data:
        raise ImageError("empty_body")
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"{len(data)} bytes, at most {limits.max_bytes}")
    found = sniff(data)
    if found is None:
        raise ImageError("not_an_image", f"begins with {data[:8].hex(' ')}")
    if found not in FORMATS and not (found == "HEIF" and limits.heif):
        raise ImageError("unsupported_format", found)
    return found


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise ImageError("corrupt_image", f"{width} x {height} pixels")
    if max(width, height) > limits.max_side:
        raise ImageError("side_too_long", f"{width} x {height}, at most {limits.max_side}")
    if width * height > limits.max_pixels:
        raise ImageError("too_many_pixels", f"{width} x {height}, at most {limits.max_pixels}")


def _refuse_bombs(limits: Limits) -> None:
    """Let Pillow guard what a plugin allocates while it reads a header (GIF); its warning is an error.

    All are settings of the process, so that threads need no lock; broken files stay broken.
    """
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    if _BOMB_IS_ERROR not in warnings.filters:
        warnings.simplefilter("error", Image.DecompressionBombWarning)


def _steps(opened: Image.Image) -> Steps | None:
    """A file with odd tables is no worse a picture."""
    if not isinstance(opened, JpegImagePlugin.JpegImageFile):
        return None
    try:
        return steps_of(opened)
    except _PARSER_ERRORS:
        return None


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; a picture with broken EXIF is taken as upright, for its pixels are good."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _PARSER_ERRORS:
        return 1


@contextmanager
def _typed(bomb_code: str) -> Iterator[None]:
    """Give every exception of a parser its code; `bomb_code` is what a decompression bomb means here."""
    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        # Pillow goes on to name a limit that is twice ours.
        raise ImageError(bomb_code, _said(error).partition(" exceeds")[0]) from error
    except MemoryError as error:
        raise ImageError("decode_memory", _said(error)) from error
    except _PARSER_ERRORS as error:
        raise ImageError(_code_of(error), _said(error)) from error


def _code_of(error: Exception) -> str:
    text = str(error).lower()
    if "decompressed data too large" in text or "too much memory used in text" in text:
        return "decompression_bomb"
    if isinstance(error, EOFError) or "truncated" in text or "unexpected end" in text:
        return "truncated_image"
    return "corrupt_image"


def _said(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "the header is broken"  # Pillow's own words name a memory address
    text = str(error).encode("ascii", "backslashreplace").decode()
    return f"{type(error).__name__}: {text}"[:200]
