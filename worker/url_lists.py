"""Lists of URLs (.txt, .csv, .jsonl) as NDJSON for the API; it sends nothing.

One line out for each line of the list, so that the line number in an error is the list's own. What the API would
refuse in a list is refused here too, and never mended in silence.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from worker.client import ClientError

COLUMNS = ("url", "id", "product_id", "category")
MAX_FAULTS = 100
KINDS = {".txt": "txt", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class WrongLines(ClientError):
    """Lines that cannot be items. ``errors`` names them, like the API's own."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        text = "Some lines are wrong. Nothing was accepted; `--skip-invalid` accepts the others."
        super().__init__("invalid_items", text)
        self.errors = errors


def row(item: dict[str, Any]) -> bytes:
    """One line of NDJSON."""
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"


class UrlList:
    """A list that may be read several times. ``suffix`` says what it is; with an unknown one, its first line does.

    With ``skip``, wrong lines are left out and ``skipped`` counts those of the last reading. ``say`` is told once
    what else is not sent.
    """

    def __init__(self, suffix: str, *, skip: bool = False, say: Callable[[str], None] = lambda text: None) -> None:
        self._suffix = suffix
        self._skip = skip
        self._say = say
        self._said: set[str] = set()
        self._faults: list[dict[str, Any]] = []
        self.skipped = 0

    def ndjson(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The body. ClientError, WrongLines if the list cannot be sent as it is."""
        self._faults = []
        self.skipped = 0
        rest = iter(lines)
        first = b""
        blank = 0
        for first in rest:
            first = first.removeprefix(b"\xef\xbb\xbf")
            if first.strip():
                break
            blank += 1
        yield b"\n" * blank
        kind = KINDS.get(self._suffix) or _sniff(first)
        numbered = enumerate(_chain(first, rest), start=blank + 1)
        if kind == "jsonl":
            yield from (line if line.endswith(b"\n") else line + b"\n" for _, line in numbered)
        else:
            yield from (self._from_txt if kind == "txt" else self._from_csv)(numbered)
        if self._faults:
            raise WrongLines(self._faults)

    def _from_txt(self, lines: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
        for number, line in lines:
            url = _text(number, line).strip()
            yield b"\n" if not url or url.startswith("#") else row({"url": url})

    def _from_csv(self, lines: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
        """The columns of COLUMNS by name, others left out. Without a header, the first column is the URL."""
        names: list[str] = []
        written = None
        for began, line, cells in _csv_rows(lines):
            if written is None:
                written = began - 1
                names, is_header = self._columns(line, cells)
                if is_header:
                    continue
            wrong = len(cells) not in (0, len(names))
            if wrong:
                self._note(line, f"{len(cells)} cells, but the first line has {len(names)}.")
            if self._faults:
                # Once it is to be refused, sending more is of no use; finding more faults is.
                if len(self._faults) >= MAX_FAULTS:
                    return
                continue
            yield b"\n" * (line - 1 - written)
            written = line
            found = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if name in COLUMNS}
            item = {name: cell for name, cell in found.items() if cell or name == "url"}
            yield row(item) if cells and not wrong else b"\n"

    def _columns(self, line: int, cells: list[str]) -> tuple[list[str], bool]:
        """The columns' names, and whether the first line is a header."""
        names = [cell.strip().lower() for cell in cells]
        if "url" not in names:
            if not names[0].startswith(("http://", "https://")):
                raise ClientError("no_url_column", f"the CSV has no column named url (line {line})")
            if len(names) > 1:
                self._say_once(f"no header: the first of {len(names)} columns is the URL, the others are not sent")
            return ["url", *[""] * (len(names) - 1)], False
        for name in COLUMNS:
            if names.count(name) > 1:
                raise ClientError("invalid_csv", f"Line {line}: the column {name} is given twice.")
        if others := [name or "(no name)" for name in names if name not in COLUMNS]:
            self._say_once(f"columns not sent, because only {', '.join(COLUMNS)} are known: {', '.join(others)}")
        return names, True

    def _note(self, line: int, detail: str) -> None:
        if self._skip:
            self.skipped += 1
        else:
            self._faults.append({"line": line, "code": "wrong_column_count", "detail": detail})

    def _say_once(self, text: str) -> None:
        # A body is read again when a connection broke.
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _sniff(first: bytes) -> str:
    line = first.strip().lower()
    if line.startswith(b"{"):
        return "jsonl"
    if line.startswith((b"http://", b"https://", b"#")) and b"," not in line:
        return "txt"
    return "csv"


def _text(number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise ClientError("invalid_utf8", f"Line {number} is not UTF-8. Nothing was accepted.") from None


def _csv_rows(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, int, list[str]]]:
    """The first line, the last line and the cells of each row; a row may span lines."""
    began = last = 0

    def texts() -> Iterator[str]:
        nonlocal began, last
        for number, line in lines:
            began, last = began or number, number
            yield _text(number, line)

    try:
        for cells in csv.reader(texts(), strict=True):
            yield began, last, cells
            began = 0
    except csv.Error as error:
        raise ClientError("invalid_csv", f"Line {last}: {error}. Nothing was accepted.") from None
