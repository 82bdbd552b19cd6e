"""Tables of labels by people as NDJSON for the API; it sends nothing.

One line out for each line of the table, so that the line number in an error is the table's own.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from worker.client import ClientError

# What an export of results has beside the columns that a person adds to it.
RESULT_COLUMNS = frozenset(
    ("id", "item_id", "product_id", "url", "filename", "outcome", "code", "tags", "labels", "moderation", "facts")
)
# And what `tagmill datasets suggest` says of a picture.
SUGGESTION_COLUMNS = frozenset(("sha256", "model_says", "score", "why"))
_NO_GROUPS = RESULT_COLUMNS | SUGGESTION_COLUMNS | {"comment"}
NONE = "-"


class LabelList:
    """A CSV with a column `item_id` and a column for each label group; `said` counts the rows that say something."""

    def __init__(self, path: Path, groups: Sequence[str] | None = None, **more: Any) -> None:
        self._path = path
        self._groups = groups
        self._more = more
        self.said = 0
        if not path.is_file():
            raise ClientError("no_such_file", f"{path}: no such file")

    def ndjson(self) -> Iterator[bytes]:
        """The body. ClientError('invalid_csv') names the line."""
        self.said = 0
        written = 0
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                groups = self._columns(reader.fieldnames or [])
                for row in reader:
                    if None in row or None in row.values():
                        raise _invalid(reader.line_num, f"has not {len(reader.fieldnames or [])} cells")
                    values = {group: value(cell) for group in groups if (cell := row[group].strip())}
                    yield b"\n" * (reader.line_num - 1 - written)
                    written = reader.line_num
                    yield self._line(row, values) if values else b"\n"
        except (UnicodeDecodeError, csv.Error) as error:
            raise ClientError("invalid_csv", f"{self._path}: {error}") from None

    def _columns(self, header: Iterable[str]) -> list[str]:
        names = list(header)
        if "item_id" not in names:
            there = ", ".join(map(repr, names[:12])) or "none"
            raise ClientError("no_item_column", f"{self._path}: no column named item_id; there is {there}")
        groups = list(self._groups or ()) or [name for name in names if name not in _NO_GROUPS]
        if missing := [name for name in groups if name not in names]:
            raise ClientError("no_such_column", f"{self._path}: no column named {missing[0]}")
        if twice := [name for name in ("item_id", "comment", *groups) if names.count(name) > 1]:
            raise ClientError("invalid_csv", f"{self._path}: the column {twice[0]} is given twice")
        if not groups:
            raise ClientError("labels_missing", f"{self._path}: no column of labels beside those of a result")
        return groups

    def _line(self, row: dict[str, str], values: dict[str, Any]) -> bytes:
        self.said += 1
        said = {"item_id": row["item_id"].strip(), "groups": values, **self._more}
        if comment := (row.get("comment") or "").strip():
            said["comment"] = comment
        return json.dumps(said, ensure_ascii=False).encode() + b"\n"


def value(text: str) -> str | list[str]:
    """`Dress` is one label, `a;b` (or `a;`) a list, `-` or nothing the empty list: none of the group's attributes."""
    if text in ("", NONE):
        return []
    if ";" in text:
        return [label for part in text.split(";") if (label := part.strip())]
    return text


def _invalid(line: int, why: str) -> ClientError:
    return ClientError("invalid_csv", f"line {line} {why}")
