"""One line or item of a list of hashes: from texts to an entry, or to what is wrong with them. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Final

from db.bank_entries import HASH, NewEntry
from db.errors import DbError

LENGTHS: Final = {"reason": 500, "source": 200, "external_id": 200, "comment": 2000}
MAX_LINE: Final = 16_384
MAX_DOCUMENT: Final = 32 * 2**20
"""Bytes of a JSON or XML document, which are read whole."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Row:
    """One line (from 1) or item (from 0) of a list: an entry, the external id of one that is `gone`, or what is wrong
    with it (`code`, `detail`, `name` of the field)."""

    place: int
    entry: NewEntry | None = None
    gone: str | None = None
    code: str | None = None
    detail: str = ""
    name: str | None = None


class BadList(DbError):
    """The file as a whole is not what it is said to be; `line` says where, if that is known."""

    code = "invalid_hash_list"

    def __init__(self, detail: str, line: int | None = None) -> None:
        super().__init__(detail)
        self.line = line


class Wrong(ValueError):
    """What is wrong with a row; it becomes one with that `code`."""

    def __init__(self, code: str, detail: str, name: str | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.name = code, detail, name


def lines(file: IO[bytes]) -> Iterator[str]:
    """The lines of a text file. Raises BadList for one that is too long or not UTF-8."""
    number = 0
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
            raise BadList(f"Line {number} is longer than {MAX_LINE} bytes.", number)
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise BadList(f"Line {number} is not UTF-8.", number) from None


def whole(file: IO[bytes]) -> bytes:
    """All of a document. Raises BadList for one that is too long."""
    data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise BadList(f"The document is longer than {MAX_DOCUMENT} bytes: import it page by page.")
    return data


def row(place: int, found: Mapping[str, str]) -> Row:
    """What the texts of a row, by field, come to."""
    try:
        return Row(place, _entry(found))
    except Wrong as wrong:
        return Row(place, code=wrong.code, detail=wrong.detail, name=wrong.name)


def _entry(found: Mapping[str, str]) -> NewEntry:
    pdq = found.get("pdq", "").strip()
    if not HASH.fullmatch(pdq):
        raise Wrong("invalid_pdq", "A PDQ hash is 64 hexadecimal digits.", "pdq")
    texts: dict[str, str | None] = {}
    for name, longest in LENGTHS.items():
        value = found.get(name, "").strip()
        if len(value) > longest:
            raise Wrong("too_long", f"At most {longest} characters.", name)
        if _CONTROL.search(value):
            raise Wrong("bad_characters", "Control characters are not allowed.", name)
        texts[name] = value or None
    return NewEntry(
        pdq.lower(),
        reason=texts["reason"],
        source=texts["source"],
        external_id=texts["external_id"],
        comment=texts["comment"],
        share=_share(found.get("share", "1")),
        enabled=_enabled(found.get("enabled", "true")),
        expires_at=_time(found.get("expires_at")),
    )


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise Wrong("invalid_value", "A number from 0 to 1.", "share")
    return share


def _enabled(value: str) -> bool:
    if value.strip().lower() not in ("true", "false"):
        raise Wrong("invalid_value", "true or false.", "enabled")
    return value.strip().lower() == "true"


def _time(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        when = datetime.fromisoformat(value.strip())
    except ValueError:
        when = datetime.min
    if when.tzinfo is None:
        raise Wrong("invalid_value", "A time with a zone, as 2027-01-31T12:00:00Z.", "expires_at")
    return when
