"""Tables of labelled pictures: the lines of a CSV as rows with their labels. Opens no picture."""

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ml.errors import DatasetError
from ml.manifest import Group, Kind, Value

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True, slots=True)
class Column:
    """Where a table says the labels of one group.

    `ignore`: values that mean "nobody knows"; so does an empty cell of an exclusive group. Attributes are
    names with `separator` between them; a column of true and false is one attribute with the group's name.
    """

    name: str
    kind: Kind = "exclusive"
    ignore: frozenset[str] = frozenset()
    separator: str = ";"


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a dataset before it was looked at. `image`: where it is; `line`: of the table, from 1."""

    image: str
    labels: Mapping[str, Value]
    split: str
    columns: Mapping[str, str] = field(default_factory=dict)
    line: int = 0


def read(
    table: Path,
    groups: Mapping[str, Column],
    place: Callable[[str], str],
    *,
    image: str,
    split: str | None,
    wanted: str | None = None,
) -> tuple[dict[str, Group], list[Row]]:
    """The label groups and the rows of a CSV with a header; `image`, `split` and `wanted` name columns.

    `place` turns the cell of a picture into where it is, or raises ValueError with what is wrong with it. Raises
    DatasetError('table_invalid') with the line (a picture on two lines is a mistake in one of them) and
    'class_missing' for a column without a label.
    """
    header, lines = _lines(table)
    for needed in (image, *(column.name for column in groups.values()), split, wanted):
        if needed is not None and needed not in header:
            raise DatasetError("table_invalid", f"{table}: no column {needed!r} among {header}", field=needed)
    flags = {group: _is_flag(lines, column) for group, column in groups.items()}
    labels = {group: set[str]() for group in groups}
    left_out = {column.name for column in groups.values()} | {image, split}
    rows: list[Row] = []
    line_of: dict[str, int] = {}
    for number, line in lines:
        values = {group: _cell(line[column.name], column, flags[group], group) for group, column in groups.items()}
        for group, value in values.items():
            labels[group].update([value] if isinstance(value, str) else value or ())
        try:
            found = place(line[image].strip())
        except ValueError as error:
            raise DatasetError("table_invalid", f"{table}: line {number}: {error}") from None
        if (before := line_of.setdefault(found, number)) != number:
            raise DatasetError("table_invalid", f"{table}: line {number} repeats {found!r} of line {before}")
        kept = {key: text for key, text in line.items() if key not in left_out}
        rows.append(Row(found, values, (line[split].strip() if split else "") or "train", kept, number))
    for group, column in groups.items():
        if not flags[group] and not labels[group]:
            raise DatasetError("class_missing", f"{table}: no label in column {column.name!r}", field=column.name)
    known = {
        group: Group(column.kind, (group,) if flags[group] else tuple(sorted(labels[group])))
        for group, column in groups.items()
    }
    return known, rows


def _lines(table: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header, and every line with its number."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines = [(reader.line_num, line) for line in reader]
            header = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError("table_invalid", f"{table}: {error}") from None
    for number, line in lines:
        if None in line or None in line.values():
            raise DatasetError("table_invalid", f"{table}: line {number} has not {len(header)} cells")
    return header, lines


def _is_flag(lines: Iterable[tuple[int, Mapping[str, str]]], column: Column) -> bool:
    cells = {line[column.name].strip().lower() for _, line in lines} - {"", *map(str.lower, column.ignore)}
    return column.kind == "attributes" and bool(cells) and cells <= {*_TRUE, *_FALSE}


def _cell(text: str, column: Column, flag: bool, group: str) -> Value:
    text = text.strip()
    if text in column.ignore or (not text and (flag or column.kind == "exclusive")):
        return None
    if flag:
        return (group,) if text.lower() in _TRUE else ()
    if column.kind == "exclusive":
        return text
    return tuple(dict.fromkeys(part for item in text.split(column.separator) if (part := item.strip())))
