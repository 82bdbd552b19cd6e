"""What a sandboxed process may answer, and what its end means; it speaks to none.

Whoever took over the process may have written the answer: every field is of a known shape and in its range, or the
process is not believed at all.
"""

import math
import re
import signal
from dataclasses import dataclass
from typing import Any, Final

from worker.sandbox_process import Header, ProtocolError

# ml.images.FORMATS, and HEIF where it is switched on; a test holds them together. Not imported: the crawler needs no
# decoder.
FORMATS: Final = frozenset({"JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"})
# What a process may say of a picture; no other code of the table is its to give.
CODES: Final = frozenset(
    {
        "empty_body",
        "too_large",
        "not_an_image",
        "unsupported_format",
        "truncated_image",
        "corrupt_image",
        "too_many_pixels",
        "side_too_long",
        "decompression_bomb",
        "decode_memory",
        "decoder_crashed",
    }
)
OUT_OF_CPU: Final = (-signal.SIGPROF, -signal.SIGXCPU)
_MOST_COLOURS: Final = 16
_MOST_SHARPNESS: Final = 1e7  # the variance of 8-bit grey levels' second differences is far below
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True)
class Normalised:
    """`work`: a JPEG of ours. `width`, `height`: of the upright original. Facts not asked for are None."""

    work: bytes
    width: int
    height: int
    format: str
    pdq: bytes | None
    pdq_quality: int | None
    colours: list[dict[str, Any]] | None
    sharpness: float | None
    seconds: float


@dataclass(frozen=True)
class NormaliseFailure:
    """Why these bytes gave no picture; `code` is one of db.codes."""

    code: str
    detail: str = ""


@dataclass(frozen=True)
class Ranges:
    """What a picture that the process was allowed to decode can be."""

    max_side: int
    max_pixels: int
    heif: bool
    seconds: float


def normalised(header: Header, work: bytes, ranges: Ranges) -> Normalised:
    """The answer as a value. ProtocolError if no honest process can have given it."""
    width, height = (_whole(header.get(side), 1, ranges.max_side) for side in ("width", "height"))
    if width * height > ranges.max_pixels:
        raise _nonsense("more pixels than are decoded")
    if not work.startswith(b"\xff\xd8\xff"):
        raise _nonsense("no working copy")
    form = header.get("format")
    if not isinstance(form, str) or not (form in FORMATS or (ranges.heif and form == "HEIF")):
        raise _nonsense("a format that is not decoded")
    pdq = None if header.get("pdq") is None else bytes.fromhex(_text(header["pdq"], _HASH))
    colours = header.get("colours")
    sharpness = header.get("sharpness")
    return Normalised(
        work=work,
        width=width,
        height=height,
        format=form,
        pdq=pdq,
        pdq_quality=None if pdq is None else _whole(header.get("pdq_quality"), 0, 100),
        colours=None if colours is None else _colours(colours),
        sharpness=None if sharpness is None else _number(sharpness, _MOST_SHARPNESS),
        seconds=_number(header.get("seconds"), ranges.seconds),
    )


def failure(header: Header) -> NormaliseFailure:
    """The failure that a process reports. ProtocolError for a code that is not its to give."""
    code, detail = header.get("code"), header.get("detail", "")
    if not isinstance(code, str) or code not in CODES or not isinstance(detail, str):
        raise _nonsense("an unknown code")
    return NormaliseFailure(code, "".join(c if c.isprintable() else "?" for c in detail[:200]))


def post_mortem(exit_code: int) -> NormaliseFailure:
    """What the death of its process says about a picture."""
    if exit_code in OUT_OF_CPU:
        return NormaliseFailure("decode_timeout", "the CPU time ran out")
    if exit_code < 0:
        return NormaliseFailure("decoder_crashed", f"the process died of {signal.Signals(-exit_code).name}")
    return NormaliseFailure("decoder_crashed", f"the process ended with {exit_code}")


def _colours(answer: Any) -> list[dict[str, Any]]:
    if not isinstance(answer, list) or len(answer) > _MOST_COLOURS:
        raise _nonsense("colours")
    return [_colour(one) for one in answer]


def _colour(one: Any) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise _nonsense("a colour")
    name = one.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 32 or not name.isprintable():
        raise _nonsense("the name of a colour")
    return {"name": name, "hex": _text(one.get("hex"), _COLOUR), "share": _number(one.get("share"), 1.0)}


def _whole(value: Any, least: int, most: int) -> int:
    # True is an int too, and no width.
    if type(value) is not int or not least <= value <= most:
        raise _nonsense(f"no whole number from {least} to {most}")
    return value


def _number(value: Any, most: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= most or not math.isfinite(value):
        raise _nonsense(f"no number from 0 to {most:g}")
    return float(value)


def _text(value: Any, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or form.fullmatch(value) is None:
        raise _nonsense("a text of another form")
    return value


def _nonsense(what: str) -> ProtocolError:
    return ProtocolError(f"an answer that makes no sense: {what}")
