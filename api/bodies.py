"""Streaming parsers of the text bodies by line: NDJSON and CSV, and the JSON decoder that all bodies share.

They yield raw rows, `(place, mapping)`, or `(place, Fault)` where the line itself is broken, at flat memory; what an
item must be is not theirs.
"""

import csv
import json
from collections.abc import Iterator
from typing import IO, Any, Final

from api.errors import Fault, Problem

Row = tuple[int, dict[str, Any] | Fault]

COLUMNS: Final = ("url", "id", "product_id", "category")
_READ: Final = 128 * 1024
MAX_ROW_LINES: Final = 100


class DuplicateMember(ValueError):
    """An object names a member twice; which one counts would depend on the reader."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateMember
    return members


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def decode(text: str, at: int = 0) -> tuple[Any, int]:
    """The JSON value that starts at `at`, and where it ends. Raises ValueError with a message for the client."""
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except DuplicateMember:
        raise ValueError("an object names a member twice") from None
    except json.JSONDecodeError as error:
        raise ValueError(error.msg) from None


def _lines(file: IO[bytes], longest: int) -> Iterator[tuple[int, str | Fault]]:
    """The lines of a body, numbered from 1, without their ends; a byte order mark is dropped."""
    file.seek(0)
    number = 0
    while raw := file.readline(longest + 2):
        number += 1
        if len(raw.rstrip(b"\r\n")) > longest:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(_READ)
            yield number, Fault("line_too_long", f"A line may have {longest} bytes.")
            continue
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise Problem("invalid_utf8", f"Line {number} is not UTF-8.") from None


def ndjson_rows(file: IO[bytes], max_line: int) -> Iterator[Row]:
    """One object a line; empty lines are passed over."""
    for number, line in _lines(file, max_line):
        if isinstance(line, Fault):
            yield number, line
            continue
        line = line.strip(" \t\r\n")
        if not line:
            continue
        try:
            value, end = decode(line)
            if end != len(line):
                raise ValueError("text after the value")
        except ValueError as error:
            yield number, Fault("invalid_json", f"Not JSON: {error}.")
            continue
        yield number, value if isinstance(value, dict) else Fault("wrong_type", "A line is an object.")


def csv_rows(file: IO[bytes], max_line: int) -> Iterator[Row]:
    """A header of these columns (any order, url at least), then a row an item; empty cells are absent."""
    broken: list[tuple[int, Fault]] = []
    row_began = 0

    def whole_lines() -> Iterator[str]:
        for number, line in _lines(file, max_line):
            if number - row_began > MAX_ROW_LINES:
                raise csv.Error(f"a row spans more than {MAX_ROW_LINES} lines; is a quote open?")
            if isinstance(line, Fault):
                broken.append((number, line))
                yield "\n"  # keeps the reader's count of lines
            else:
                yield line

    reader = csv.reader(whole_lines(), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            row_began = reader.line_num
            # A row may span lines, so that a broken line can lie inside it: then the whole row is refused.
            while broken:
                yield broken.pop(0)
            if not cells:
                continue
            if header is None:
                header = _header(cells)
                continue
            if len(cells) != len(header):
                detail = f"{len(cells)} cells, but the header has {len(header)}."
                yield reader.line_num, Fault("wrong_column_count", detail)
                continue
            yield reader.line_num, {name: cell for name, cell in zip(header, cells, strict=True) if cell}
        yield from broken
    except csv.Error as error:
        raise Problem(
            "invalid_csv", f"Line {reader.line_num}: {error}.", [Fault("invalid_csv", str(error), line=reader.line_num)]
        ) from None
    if header is None and not broken:
        raise Problem("empty_job", "The body has no header and no row.")


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    faults = [
        Fault("unknown_field", f"Columns are {', '.join(COLUMNS)}.", field=name[:100], line=1)
        for name in names
        if name not in COLUMNS
    ]
    faults += [
        Fault("duplicate_field", "The column is given twice.", field=name, line=1)
        for name in COLUMNS
        if names.count(name) > 1
    ]
    if "url" not in names:
        faults.append(Fault("missing", "The header needs a column url.", field="url", line=1))
    if faults:
        raise Problem("invalid_csv", "The first line must name the columns.", faults)
    return names
