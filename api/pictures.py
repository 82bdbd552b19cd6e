"""Working copies as answers: found in the blob store, made small, veiled. Who may see what is in `db.veils`."""

import io
from typing import Final

from flask import Response
from PIL import Image, ImageFilter

from db.blob_store import Blobs
from db.errors import BlobMissing, NotFound
from db.items import ItemView

JPEG: Final = {"image/jpeg": {"type": "string", "format": "binary"}}
"""What an operation that answers with a picture says of its content."""
_VEIL_PIXELS: Final = 28
"""A veiled picture has this many different points along its longer side: shapes are left, no face and no detail is."""
# Nobody's script may ever run from a picture, whatever a browser makes of its bytes.
_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; sandbox", "X-Content-Type-Options": "nosniff"}


def working_copy(blobs: Blobs, item: ItemView) -> bytes:
    """The picture of an item as it is; NotFound."""
    if item.work_key is None:
        raise NotFound("The item has no picture.")
    try:
        return blobs.get(item.work_key)
    except BlobMissing:
        raise NotFound("The picture is gone.") from None


def small(data: bytes, size: int, *, veiled: bool) -> bytes:
    """A JPEG of at most `size` points a side, without metadata. `data` is a working copy: a picture that we made."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        picture.draft("RGB", (size, size))
        drawn = picture.convert("RGB")
    drawn.thumbnail((size, size), Image.Resampling.LANCZOS)
    if veiled:
        full = drawn.size
        drawn.thumbnail((_VEIL_PIXELS, _VEIL_PIXELS), Image.Resampling.BOX)
        drawn = drawn.convert("L").resize(full, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(size / 60))
    out = io.BytesIO()
    drawn.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


def jpeg(data: bytes, cache: str, name: str = "picture.jpg") -> Response:
    """The answer with this picture; `cache`: for how long, and by whom, it may be kept."""
    headers = {**_HEADERS, "Cache-Control": cache, "Content-Disposition": f'inline; filename="{name}"'}
    return Response(data, content_type="image/jpeg", headers=headers)
