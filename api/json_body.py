"""Reads a job from a JSON body of any length at flat memory: a cursor over the text decodes one item at a time."""

import codecs
import re
from collections.abc import Iterator
from typing import IO, Any, Final

from api.bodies import Row, decode
from api.errors import Fault, Problem

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_BETWEEN: Final = re.compile(r"[ \t\n\r]*([,\]])[ \t\n\r]*")
_READ: Final = 128 * 1024


class JsonJob:
    """A body `{"items": […], …}`, read twice: once for the members around `items`, once for the items.

    Two passes, because clients write `items` first, and the options must be known before the first row is stored.
    """

    def __init__(self, file: IO[bytes], max_item: int) -> None:
        self._file = file
        self._max_item = max_item

    def options(self) -> dict[str, Any]:
        """Every member but `items`; Problem `invalid_json`, `invalid_utf8` or `invalid_body`."""
        found: dict[str, Any] = {}
        scan = _Scan(self._file, self._max_item)
        seen = set()
        for name in scan.members():
            if name in seen:
                fault = Fault("duplicate_field", "The member is given twice.", field=name[:100])
                raise Problem("invalid_body", "See `errors`.", [fault])
            seen.add(name)
            if name == "items":
                for _ in scan.elements():
                    pass
            else:
                found[name] = scan.value()
        if "items" not in seen:
            raise Problem("invalid_body", "See `errors`.", [Fault("missing", "Field required", field="items")])
        return found

    def items(self) -> Iterator[Row]:
        """The elements of `items`, numbered from 0."""
        scan = _Scan(self._file, self._max_item)
        for name in scan.members():
            if name != "items":
                scan.value()
                continue
            yield from enumerate(scan.elements())


class _Scan:
    """A cursor over UTF-8 JSON text. Whenever it decodes, a whole value of allowed length is in the window, so
    that a decoder error is the client's and never the window's."""

    def __init__(self, file: IO[bytes], longest: int) -> None:
        file.seek(0)
        self._file = file
        self._longest = longest
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._before = 0
        self._ended = False
        self._item: int | None = None

    def members(self) -> Iterator[str]:
        """The names of the top object's members; the caller consumes each value before asking for the next."""
        if self._peek() != "{":
            self.value()
            raise Problem("invalid_body", "See `errors`.", [Fault("wrong_type", "The body must be an object.")])
        self._at += 1
        mark = self._take('"}')
        while mark == '"':
            self._at -= 1
            name = self.value()
            self._take(":")
            yield name
            if self._take(",}") == "}":
                break
            mark = self._take('"')
        if self._peek():
            raise self._broken("text after the end of the document")

    def elements(self) -> Iterator[dict[str, Any] | Fault]:
        """The elements of the array that comes now, each an object or a Fault."""
        if self._peek() != "[":
            fault = Fault("wrong_type", "Input should be a valid list", field="items")
            raise Problem("invalid_body", "See `errors`.", [fault])
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        self._item = 0
        while True:
            value = self.value()
            yield value if isinstance(value, dict) else Fault("wrong_type", "An item is an object.")
            self._item += 1
            match = _BETWEEN.match(self._text, self._at)
            if match is not None and match.end() < len(self._text):
                self._at = match.end()
                mark = match[1]
            else:
                mark = self._take(",]")
            if mark == "]":
                self._item = None
                return

    def value(self) -> Any:
        """The value that comes now, whole."""
        self._peek()
        while len(self._text) - self._at <= self._longest + 64 and self._refill():
            pass
        try:
            value, end = decode(self._text, self._at)
        except ValueError as error:
            if len(self._text) - self._at > self._longest and str(error).startswith("Unterminated"):
                raise self._too_long() from None
            raise self._broken(str(error)) from None
        if end - self._at > self._longest:
            raise self._too_long()
        self._at = end
        return value

    def _take(self, expected: str) -> str:
        found = self._peek()
        if not found or found not in expected:
            what = f"expected {' or '.join(expected)}"
            raise self._broken(what if found else "the document ends too early")
        self._at += 1
        return found

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._refill():
                return ""

    def _refill(self) -> bool:
        """Forget what was read and add text behind what was not; False at the end of the body."""
        if self._ended:
            return False
        data = self._file.read(_READ)
        try:
            more = self._utf8.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise Problem("invalid_utf8", "The body is not UTF-8.") from error
        self._ended = not data
        self._before += self._at
        self._text = self._text[self._at :] + more
        self._at = 0
        return True

    def _too_long(self) -> Problem:
        detail = f"A value may have {self._longest} characters."
        return Problem("invalid_body", "See `errors`.", [Fault("line_too_long", detail, item=self._item)])

    def _broken(self, why: str) -> Problem:
        detail = f"Character {self._before + self._at}: {why}."
        return Problem("invalid_json", detail, [Fault("invalid_json", detail, item=self._item)])
