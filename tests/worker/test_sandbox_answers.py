"""Answers of a sandboxed process: an honest one is taken as it is, and no field of a dishonest one is believed."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.codes import CODES
from ml import images
from worker import sandbox_answers
from worker.sandbox_answers import NormaliseFailure, Ranges, failure, normalised
from worker.sandbox_process import ProtocolError

RANGES = Ranges(max_side=1000, max_pixels=500_000, heif=False, seconds=15.0)
WORK = b"\xff\xd8\xff\xe0"
HONEST: dict[str, Any] = {
    "width": 1000,
    "height": 500,
    "format": "PNG",
    "pdq": "0f" * 32,
    "pdq_quality": 100,
    "colours": [{"name": "dusty pink", "hex": "#c4a0a0", "share": 1.0}],
    "sharpness": 1900.25,
    "seconds": 0.25,
}
COLOUR = HONEST["colours"][0]


def test_an_honest_answer_is_taken_as_it_is() -> None:
    answer = normalised(HONEST, WORK, RANGES)
    assert (answer.work, answer.width, answer.height, answer.format) == (WORK, 1000, 500, "PNG")
    assert (answer.pdq, answer.pdq_quality, answer.colours) == (b"\x0f" * 32, 100, HONEST["colours"])
    assert (answer.sharpness, answer.seconds) == (1900.25, 0.25)
    few = normalised({key: HONEST[key] for key in ("width", "height", "format", "seconds")}, WORK, RANGES)
    assert (few.pdq, few.pdq_quality, few.colours, few.sharpness) == (None, None, None, None)


LIES: list[dict[str, Any]] = [
    *({"width": value} for value in (0, -1, 1001, 10**30, 1.5, "7", True, None, float("nan"))),
    *({"height": value} for value in (0, 501, [])),  # 501: more pixels than allowed
    *({"format": value} for value in ("PSD", "HEIF", "png", "", None, 7, ["PNG"], "PNG\n")),
    *({"pdq": value} for value in ("", "0f" * 31, "0f" * 33, "zz" * 32, " " * 64, 7, ["0f" * 32])),
    *({"pdq_quality": value} for value in (-1, 101, 50.5, "50", None, True)),
    *({"sharpness": value} for value in (float("nan"), float("inf"), -1, 1e300, "1", True, [])),
    *({"seconds": value} for value in (float("nan"), float("inf"), -1e-9, 15.1, "1", None)),
    *({"colours": value} for value in ({}, "red", 7, [COLOUR] * 17, [None], [["red"]], [{}])),
    *({"colours": [{**COLOUR, "name": name}]} for name in ("", "x" * 33, "a\nb", "\ud800", "\x00", 7, None)),
    *({"colours": [{**COLOUR, "hex": value}]} for value in ("c4a0a0", "#c4a0a", "#c4a0a0\n", "#GGGGGG", 7, None)),
    *({"colours": [{**COLOUR, "share": share}]} for share in (-0.1, 1.1, float("nan"), float("inf"), "1", None)),
]


@pytest.mark.parametrize("lie", LIES)
def test_a_field_out_of_its_range_is_not_believed(lie: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        normalised({**HONEST, **lie}, WORK, RANGES)


def test_what_is_no_jpeg_is_no_working_copy() -> None:
    for work in (b"", b"\x89PNG", b"<svg>"):
        with pytest.raises(ProtocolError):
            normalised(HONEST, work, RANGES)


def test_the_formats_are_those_that_are_decoded() -> None:
    assert set(images.FORMATS) == sandbox_answers.FORMATS
    heif = {**HONEST, "format": "HEIF"}
    assert normalised(heif, WORK, Ranges(1000, 500_000, True, 15.0)).format == "HEIF"


def test_failures_keep_a_known_code_and_printable_words() -> None:
    assert failure({"code": "corrupt_image", "detail": "bad"}) == NormaliseFailure("corrupt_image", "bad")
    assert failure({"code": "not_an_image"}) == NormaliseFailure("not_an_image")
    said = failure({"code": "corrupt_image", "detail": "a\x1b[2J\n\ud800\x00" + "x" * 500}).detail
    assert said.startswith("a?[2J???x")
    assert len(said) == 200
    for code in ("http_404", "poison", "cancelled", "nonsense", "", None, 7, ["corrupt_image"]):
        with pytest.raises(ProtocolError):
            failure({"code": code, "detail": ""})
    with pytest.raises(ProtocolError):
        failure({"code": "corrupt_image", "detail": ["x"]})
    assert CODES.keys() >= sandbox_answers.CODES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*HONEST, "code", "detail"]), JSON))
def test_whatever_is_answered_is_believed_or_refused(lies: dict[str, Any]) -> None:
    """And what is believed can be stored as JSON."""
    try:
        answer = normalised({**HONEST, **lies}, WORK, RANGES)
    except ProtocolError:
        pass
    else:
        json.dumps([answer.colours, answer.sharpness, answer.seconds], allow_nan=False)
    with contextlib.suppress(ProtocolError):
        failure(lies)
