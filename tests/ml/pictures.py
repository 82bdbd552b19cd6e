"""Pictures and hostile files made on the spot for the tests of decoding. It asserts nothing."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


def canonical(size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A smooth picture without any symmetry, so that every turn and every lost channel shows."""
    width, height = size
    x = np.linspace(0, 255, width)[None, :].repeat(height, axis=0)
    y = np.linspace(255, 0, height)[:, None].repeat(width, axis=1)
    image = Image.fromarray(np.stack([x, y, (x + 2 * y) / 3], axis=2).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3, height // 4), fill=(250, 40, 40))
    draw.ellipse((width // 2, height // 2, width * 3 // 4, height - 4), fill=(20, 60, 200))
    return image


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def gap(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two RGB pictures of one size, in grey levels."""
    assert one.size == other.size
    assert one.mode == other.mode == "RGB"
    return float(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).mean())


# What a camera stores for each EXIF orientation so that a viewer sees the upright picture.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored_turned(image: Image.Image, orientation: int, format: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = image if orientation == 1 else image.transpose(STORED[orientation])
    return encoded(turned, format, exif=exif, **options)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body))


def png(width: int, height: int, *, bits: int = 8, colour: int = 2, extra: bytes = b"", rows: bytes = b"") -> bytes:
    header = struct.pack("!IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def lying(data: bytes, true: bytes, false: bytes) -> bytes:
    """`data` with its declared size altered."""
    assert data.count(true) >= 1
    return data.replace(true, false, 1)


def huge_pictures() -> dict[str, bytes]:
    """Small files that declare enormous pictures, one for each format that can."""
    small = canonical((64, 48))
    jpeg = lying(encoded(small, "JPEG"), struct.pack("!HH", 48, 64), b"\xff\xdc\xff\xdc")
    gif = encoded(small, "GIF")
    gif = gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    bmp = encoded(small, "BMP")
    bmp = bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:]
    tiff = encoded(small, "TIFF", compression="tiff_deflate")
    for tag, true, false in ((256, 64, 200_000), (257, 48, 200_000)):
        tiff = lying(tiff, struct.pack("<HHIHH", tag, 3, 1, true, 0), struct.pack("<HHII", tag, 4, 1, false))
    webp = stored_turned(small, 1, "WEBP")
    at = webp.index(b"VP8X") + 12
    webp = webp[:at] + b"\xff\x3f\x00\xff\x3f\x00" + webp[at + 6 :]
    lossy = encoded(small, "WEBP")
    assert lossy[12:16] == b"VP8 "
    # Above our limit and below Pillow's, which is twice ours for what a plugin allocates while it opens.
    lossy = lossy[:26] + struct.pack("<HH", 8_000, 7_500) + lossy[30:]
    avif = encoded(small, "AVIF", speed=10)
    avif = lying(
        avif, b"ispe\0\0\0\0" + struct.pack("!II", 64, 48), b"ispe\0\0\0\0" + struct.pack("!II", 16_000, 16_000)
    )
    return {
        "png 1 bit": png(30_000, 30_000, bits=1, colour=0, rows=bytes(3751 * 30_000)),
        "jpeg header": jpeg,
        "gif screen": gif,
        "bmp header": bmp,
        "tiff tags": tiff,
        "webp canvas": webp,
        "webp frame": lossy,
        "avif ispe": avif,
    }


def refused_files() -> dict[str, tuple[bytes, str]]:
    """Files that call themselves .jpg and are none, with the code they must get."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(id) run\n"
    zipped = b"PK\x03\x04\x14\0\0\0\0\0" + bytes(40)
    return {
        "eps": (eps, "unsupported_format"),
        "binary eps": (b"\xc5\xd0\xd3\xc6" + bytes(26) + eps, "unsupported_format"),
        "psd": (b"8BPS\0\1" + bytes(6) + struct.pack("!HIIHH", 3, 9, 9, 8, 3) + bytes(12), "unsupported_format"),
        "pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "unsupported_format"),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        "svg xml": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg/>', "unsupported_format"),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "unsupported_format"),
        "jpeg2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(32), "unsupported_format"),
        "ppm": (b"P6 1 1 255\nabc", "unsupported_format"),
        "html": (b"<!doctype html><html><body>404</body></html>", "not_an_image"),
        "zip": (zipped, "not_an_image"),
        "json": (b'{"error": "no such picture"}', "not_an_image"),
        "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(64), "not_an_image"),
        "text": (b"hello", "not_an_image"),
        "empty": (b"", "empty_body"),
    }
