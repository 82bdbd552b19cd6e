"""Any of Pillow's pixel modes → 8-bit RGB on white. It opens and writes nothing."""

import numpy as np
from PIL import Image

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_OPAQUE = ("1", "L", "CMYK", "YCbCr", "LAB", "HSV", "RGBX")


def flatten_to_rgb(image: Image.Image) -> Image.Image:
    """`image` (loaded) as RGB: alpha laid on white, deep samples scaled, never clipped.

    CMYK and LAB are converted by formula; an embedded ICC profile is ignored.
    """
    if image.mode in _SIXTEEN_BIT or image.mode in ("I", "F"):
        image = _grey8(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _OPAQUE and "transparency" not in image.info:
        return image.convert("RGB")
    if image.mode == "P" and not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    return _on_white(image.convert("RGBA"))


def _on_white(rgba: Image.Image) -> Image.Image:
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _grey8(image: Image.Image) -> Image.Image:
    """Grey samples deeper than 8 bits as mode L.

    16-bit: the high byte. 32-bit integers and floats carry no range of their own: integers within 0…65535
    are read as 16-bit, floats within 0…1 as a share, floats within 0…255 as 8-bit; anything else is
    stretched from its least to its greatest value. NaN and infinities count as 0.
    """
    samples = np.asarray(image)
    if image.mode in _SIXTEEN_BIT:
        return Image.fromarray((samples >> 8).astype(np.uint8))
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(samples.min()), float(samples.max())
    if image.mode == "I" and low >= 0 and high <= 65_535:
        return Image.fromarray((samples >> 8).astype(np.uint8))
    if image.mode == "F" and low >= 0 and high <= 255:
        scale = 255.0 if high <= 1 else 1.0
        return Image.fromarray(np.rint(samples * np.float32(scale)).astype(np.uint8))
    span = (high - low) or 1.0
    stretched = (samples.astype(np.float32) - np.float32(low)) * np.float32(255.0 / span)
    return Image.fromarray(np.clip(np.rint(stretched), 0, 255).astype(np.uint8))
