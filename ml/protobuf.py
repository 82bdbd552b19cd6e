"""The wire format of Protocol Buffers, read in plain Python; knows no schema, imports nothing and runs nothing.

Files from outside are looked at with this before any native parser sees them. It is stricter than protobuf itself: what
two readers could understand differently (a group, a cut-off field, a single field given twice) is an error.
Source of the format: https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from typing import Final

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST_FIELDS: Final = 5_000_000  # in one file; real networks have some ten thousand

Value = int | memoryview


class WireError(ValueError):
    """Not the wire format, or not a file that one can understand in only one way."""


class Budget:
    """How many fields may still be read of one file: what keeps a small file from taking hours."""

    def __init__(self, fields: int = MOST_FIELDS) -> None:
        self.left = fields

    def take(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise WireError(f"more than {MOST_FIELDS} fields")


class Message:
    """The fields of one message by number, in order; nested messages stay bytes until they are asked for."""

    def __init__(self, data: memoryview, budget: Budget) -> None:
        self._budget = budget
        self._fields: dict[int, list[Value]] = {}
        for number, value in _fields(data, budget):
            self._fields.setdefault(number, []).append(value)

    def has(self, number: int) -> bool:
        return number in self._fields

    def messages(self, number: int) -> list["Message"]:
        """The nested messages in a repeated field. Raises WireError."""
        return [Message(value, self._budget) for value in self._bytes(number)]

    def message(self, number: int) -> "Message | None":
        """The nested message in a single field. Raises WireError, also if it is there twice."""
        found = self._bytes(number)
        self._single(number, len(found))
        return Message(found[0], self._budget) if found else None

    def texts(self, number: int) -> list[str]:
        """The texts in a repeated field. Raises WireError where one is not UTF-8."""
        try:
            return [bytes(value).decode() for value in self._bytes(number)]
        except UnicodeDecodeError as error:
            raise WireError(f"field {number} is no UTF-8") from error

    def text(self, number: int) -> str:
        """The text in a single field, "" where there is none. Raises WireError."""
        found = self.texts(number)
        self._single(number, len(found))
        return found[0] if found else ""

    def number(self, number: int) -> int | None:
        """The integer in a single field (int64, so that negative ones are negative). Raises WireError."""
        found = self._fields.get(number, [])
        self._single(number, len(found))
        if not found:
            return None
        if not isinstance(found[0], int):
            raise WireError(f"field {number} is no integer")
        return found[0] - (1 << 64) if found[0] >= 1 << 63 else found[0]

    def _single(self, number: int, count: int) -> None:
        # A second one would be merged into the first by some readers and replace it for others.
        if count > 1:
            raise WireError(f"field {number} is given {count} times")

    def _bytes(self, number: int) -> list[memoryview]:
        found = self._fields.get(number, [])
        values = [value for value in found if isinstance(value, memoryview)]
        if len(values) != len(found):
            raise WireError(f"field {number} is of another kind")
        return values


def read(data: bytes) -> Message:
    """The outermost message. Raises WireError."""
    return Message(memoryview(data), Budget())


def _fields(data: memoryview, budget: Budget) -> Iterator[tuple[int, Value]]:
    at, end = 0, len(data)
    while at < end:
        budget.take()
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireError("a field with the number 0")
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise WireError(f"field {number} has the unknown wire type {kind}")
        if size > end - at:
            raise WireError(f"field {number} is cut off")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
    raise WireError("a number of more than ten bytes")
