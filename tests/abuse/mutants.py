"""Damaged pictures by number: the n-th mutant of a seed is always the same bytes."""

import random
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache

from PIL import Image

from tests.ml.pictures import canonical, encoded, stored_turned

_TELLING = (0, 1, 0x7F, 0x80, 0xFF)
_WORDS = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@lru_cache
def good() -> tuple[tuple[str, bytes], ...]:
    """Small whole files of the four formats, in the ways in which each can be stored."""
    picture, grey = canonical(), canonical().convert("L")
    frames = [Image.new("P", (40, 30), n) for n in range(3)]
    films = [canonical((40, 30)), canonical((40, 30)).rotate(90), canonical((40, 30)).rotate(180)]
    files = [
        ("JPEG", encoded(picture, "JPEG", quality=80)),
        ("JPEG", encoded(picture, "JPEG", progressive=True, quality=60)),
        ("JPEG", encoded(grey, "JPEG", optimize=True)),
        ("JPEG", encoded(picture.convert("CMYK"), "JPEG")),
        ("JPEG", stored_turned(picture, 6, "JPEG")),
        ("PNG", encoded(picture, "PNG")),
        ("PNG", encoded(picture.quantize(31), "PNG", transparency=3)),
        ("PNG", encoded(picture.convert("RGBA"), "PNG")),
        ("PNG", encoded(Image.new("I;16", (50, 40), 40_000), "PNG")),
        ("WEBP", encoded(picture, "WEBP", quality=70)),
        ("WEBP", encoded(picture, "WEBP", lossless=True)),
        ("WEBP", encoded(films[0], "WEBP", save_all=True, append_images=films[1:])),
        ("WEBP", stored_turned(picture, 3, "WEBP")),
        ("GIF", encoded(picture.quantize(64), "GIF")),
        ("GIF", encoded(picture.quantize(16), "GIF", interlace=1)),
        ("GIF", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=0)),
    ]
    return tuple(files)


def mutant(seed: int, number: int) -> bytes:
    """The mutant of that number: one file, damaged once to five times, and then perhaps made plausible again."""
    chance = random.Random(f"{seed}:{number}")
    kind, whole = good()[number % len(good())]
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 3, 5))):
        chance.choice(DAMAGES)(data, chance)
        if len(data) < 4:
            break
    if kind == "PNG" and chance.random() < 0.8:
        data = bytearray(_checked_again(bytes(data)))
    if kind == "WEBP" and len(data) > 12 and chance.random() < 0.8:
        data[4:8] = struct.pack("<I", len(data) - 8)
    return bytes(data)


def _byte(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] = chance.choice((*_TELLING, chance.randrange(256)))


def _bit(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _word(data: bytearray, chance: random.Random) -> None:
    """A number that overflows something, where a length or a size may stand."""
    form, value = chance.choice(("<H", ">H", "<I", ">I")), chance.choice(_WORDS)
    packed = struct.pack(form, value & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
    at = chance.randrange(min(len(data), 400))
    data[at : at + len(packed)] = packed


def _cut(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randint(1, 64)]


def _end(data: bytearray, chance: random.Random) -> None:
    if chance.random() < 0.3:
        del data[chance.randrange(1, len(data)) :]


def _twice(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    part = data[at : at + chance.randint(1, 200)]
    data[at:at] = part * chance.choice((1, 2, 16))


def _foreign(data: bytearray, chance: random.Random) -> None:
    """A piece of another file."""
    _, other = chance.choice(good())
    at, start = chance.randrange(len(data)), chance.randrange(len(other))
    data[at:at] = other[start : start + chance.randint(1, 300)]


def _noise(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at : at + 16] = chance.randbytes(16)


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_byte, _byte, _bit, _bit, _word, _word),
    *(_cut, _end, _twice, _foreign, _noise),
)


def _checked_again(data: bytes) -> bytes:
    """A PNG with right checksums, as far as its chunks can be told apart: the damage gets behind the first check."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        body = data[at + 4 : at + 8 + size]
        if len(body) < 4 + size:
            break
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return out + data[at:]
