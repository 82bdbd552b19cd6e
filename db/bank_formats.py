"""Lists of hashes as files, in and out; no database.

    csv             our own; what we export, we import
    signals         lines "pdq HASH": the local file exchange of python-threatexchange (exchanges/impl/file_api.py)
    threatexchange, ncmec   what exchanges give out: `db.bank_exchanges`; in only

A wrong line or item is a row with a fault, and the rest goes on.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import IO, Final

from db.bank_exchanges import ncmec, threatexchange
from db.bank_rows import LENGTHS, BadList, Row, lines, row
from db.bank_tables import Entry
from db.spreadsheets import harmless

COLUMNS: Final = ("pdq", "reason", "source", "external_id", "comment", "share", "enabled", "expires_at")
MADE: Final = ("id", "state", "added_by", "added_at")
"""Columns of an export that an import passes over."""


def read(form: str, file: IO[bytes]) -> Iterator[Row]:
    """The rows of a list in one of `FORMS`. Raises BadList for a file that is none."""
    return FORMS[form][1](file)


def unit(form: str) -> str:
    """What rows of this form are counted in: line or item."""
    return FORMS[form][0]


def written(entries: Iterable[Entry], form: str, *, head: bool = True) -> Iterator[str]:
    """A list of entries as text, line by line: csv (with its `head`, or not) or signals."""
    if form == "signals":
        for entry in entries:
            yield f"pdq {entry.hash}\n"
        return
    if head:
        yield ",".join((*COLUMNS, *MADE)) + "\r\n"
    for entry in entries:
        cells = {
            "pdq": entry.hash,
            **{name: getattr(entry, name) for name in LENGTHS},
            "share": f"{entry.share:g}",
            "enabled": "true" if entry.enabled else "false",
            "expires_at": None if entry.expires_at is None else entry.expires_at.isoformat(),
            "id": str(entry.id),
            "state": entry.state,
            "added_by": entry.actor,
            "added_at": entry.created_at.isoformat(),
        }
        yield _csv_line(_guarded(cells[name]) for name in (*COLUMNS, *MADE))


def _csv_line(cells: Iterable[str]) -> str:
    quoted = ('"' + cell.replace('"', '""') + '"' if re.search(r'[",\r\n]', cell) else cell for cell in cells)
    return ",".join(quoted) + "\r\n"


def _of_csv(file: IO[bytes]) -> Iterator[Row]:
    reader = csv.reader(lines(file), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = _header(cells)
            elif len(cells) != len(header):
                detail = f"{len(cells)} cells, but the header has {len(header)}."
                yield Row(reader.line_num, code="wrong_column_count", detail=detail)
            else:
                named = {name: _plain(cell) for name, cell in zip(header, cells, strict=True) if cell}
                yield row(reader.line_num, named)
    except csv.Error as error:
        raise BadList(f"Line {reader.line_num}: {error}.", reader.line_num) from None
    if header is None:
        raise BadList("The file has no header.")


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    for name in names:
        if name not in (*COLUMNS, *MADE):
            raise BadList(f"There is no column {name[:100]!r}; columns are {', '.join(COLUMNS)}.", 1)
        if names.count(name) > 1:
            raise BadList(f"The column {name} is given twice.", 1)
    if "pdq" not in names:
        raise BadList("The header needs a column pdq.", 1)
    return names


def _formula(cell: str) -> bool:
    """Whether a spreadsheet would calculate the cell, were it not for its apostrophes."""
    bare = cell.lstrip("'")
    return harmless(bare) != bare


def _guarded(cell: str | None) -> str:
    """The cell with one more apostrophe than it has, if it needs any; `_plain` takes it off again."""
    return f"'{cell}" if cell is not None and _formula(cell) else cell or ""


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _formula(cell) else cell


def _of_signals(file: IO[bytes]) -> Iterator[Row]:
    for number, line in enumerate(lines(file), start=1):
        kind, _, signal = line.strip().rpartition(" ")
        if not signal:
            continue
        if kind not in ("", "pdq"):
            yield Row(number, code="unsupported_signal", detail=f"A signal of type {kind[:50]!r}; pdq is matched only.")
        else:
            yield row(number, {"pdq": signal})


FORMS: Final = {
    "csv": ("line", _of_csv),
    "signals": ("line", _of_signals),
    "threatexchange": ("item", threatexchange),
    "ncmec": ("item", ncmec),
}
