"""The wire format: what protobuf writes is read, and nothing that could be understood in two ways."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml import protobuf
from ml.protobuf import Budget, Message, WireError


def test_numbers_texts_and_messages_are_read() -> None:
    # Field 1 = 150 (the example of protobuf's own page), field 2 = "testing", field 3 = {1: 150}, field 4 = −1.
    message = protobuf.read(bytes.fromhex("089601120774657374696e671a0308960120ffffffffffffffffff01"))
    assert message.number(1) == 150
    assert message.text(2) == "testing"
    nested = message.message(3)
    assert nested is not None
    assert nested.number(1) == 150
    assert message.number(4) == -1
    assert (message.number(9), message.text(9), message.message(9)) == (None, "", None)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("08", "ends within a number"),
        ("0a0561", "cut off"),
        ("08ffffffffffffffffffffff01", "more than ten bytes"),
        ("0b", "unknown wire type 3"),
        ("0001", "number 0"),
        ("0d0102", "cut off"),
    ],
)
def test_what_is_no_wire_format(data: str, why: str) -> None:
    with pytest.raises(WireError, match=why):
        protobuf.read(bytes.fromhex(data))


def test_a_single_field_given_twice_is_refused_when_asked_for() -> None:
    message = protobuf.read(bytes.fromhex("08010802"))
    with pytest.raises(WireError, match="given 2 times"):
        message.number(1)


def test_a_field_of_another_kind() -> None:
    message = protobuf.read(bytes.fromhex("0801"))
    with pytest.raises(WireError, match="another kind"):
        message.messages(1)


def test_many_small_fields_end_the_reading() -> None:
    with pytest.raises(WireError, match="fields"):
        Message(memoryview(b"\x08\x01" * 11), Budget(10))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(WireError):
        protobuf.read(data)
