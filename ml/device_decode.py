"""Working copies decoded by the GPU (nvJPEG, through torchvision) and resized there; CPU threads do the rest.

For baseline JPEGs with three components that end as they should, which our own encoder's are; the CPU decodes all
others. nvJPEG rounds otherwise than libjpeg-turbo, so it is taken only where the scores of made pictures agree.
"""

import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from ml.backends import made_pictures
from ml.lanes import Lanes, is_out_of_memory
from ml.presets import Preset

# How far a score may move by the other decoder: a quarter of what bf16 may move it.
SCORE_GAP: Final = 5e-3
_AT_ONCE: Final = 32  # pictures of one size that are resized together; more take memory and save nothing

Pictures = Callable[[Sequence[bytes]], Sequence[Tensor]]


class DeviceDecodeError(Exception):
    """The device does not decode these pictures, at least one of which is to blame."""


class DeviceDecoder:
    """Decodes batches into the rows of the presets. `pictures`: bytes → uint8 RGB 3×H×W on the device."""

    def __init__(self, lanes: Lanes, presets: Sequence[Preset], pictures: Pictures | None = None) -> None:
        self._lanes = lanes
        self._presets = presets
        self._pictures = pictures or (lambda data: _nvjpeg(data, lanes.device))

    def __call__(self, encoded: Sequence[bytes], rows: Sequence[Tensor]) -> list[int]:
        """Fill `rows` (one tensor a preset), those of one size after the other; the order in which they came.

        Raises DeviceDecodeError.
        """
        # The decoder works on a stream of its own: what it is given may still be read by what was told before.
        self._lanes.mark().synchronize()
        try:
            pictures = self._pictures(encoded)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise DeviceDecodeError(str(error).partition("\n")[0]) from error
        order: list[int] = []
        for group in _alike(pictures):
            batch = torch.stack([pictures[at] for at in group])
            for preset, into in zip(self._presets, rows, strict=True):
                into[len(order) : len(order) + len(group)].copy_(preset(batch))
            order += group
        return order


def suits(data: bytes) -> bool:
    """Whether these bytes are a whole baseline JPEG with three components of 8 bits."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker == 0xC0 and data[at + 4 : at + 5] == b"\x08" and data[at + 9 : at + 10] == b"\x03"
        if marker == 0xDA or length < 2:
            return False
        at += 2 + length
    return False


def copies() -> list[bytes]:
    """Working copies of made pictures, with whole and with halved colour."""
    found = []
    for picture in made_pictures():
        image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
        for subsampling in (0, 2):
            out = BytesIO()
            image.save(out, "JPEG", quality=90, subsampling=subsampling)
            found.append(out.getvalue())
    return found


def images_s(run: Callable[[], object], pictures: int, *, rounds: int = 5) -> float:
    """Pictures a second of the fastest of some rounds, after one that does not count."""
    run()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return pictures / max(min(took), 1e-9)


def _nvjpeg(data: Sequence[bytes], device: torch.device) -> Sequence[Tensor]:
    from torchvision import io

    raw = [torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in data]
    found: Any = io.decode_jpeg(raw, mode=io.ImageReadMode.RGB, device=device)
    return list(found)


def _alike(pictures: Sequence[Tensor]) -> list[list[int]]:
    """The positions of pictures of the same size, in groups that are not too large."""
    sizes: dict[torch.Size, list[int]] = {}
    for at, picture in enumerate(pictures):
        sizes.setdefault(picture.shape, []).append(at)
    return [alike[at : at + _AT_ONCE] for alike in sizes.values() for at in range(0, len(alike), _AT_ONCE)]
