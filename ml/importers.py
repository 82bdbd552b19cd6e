"""Datasets from folders and tables: pictures in, a manifest and a report of what is wrong with them out.

Reads only below the folder it is given; copies nothing and asks no network.
"""

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ml import facts, images
from ml.errors import DatasetError
from ml.manifest import Entry, Group, Kind, Manifest, Value, named, require_identifiers
from ml.splits import Leak, leaks, near_pairs

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"})
MIN_PDQ_QUALITY = 50  # below, PDQ says that the hash is not to be matched
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True, slots=True)
class Report:
    """What an import saw. Pictures that cannot be read and those without any label are not in the manifest."""

    counts: Mapping[str, Mapping[str, Mapping[str, int]]]  # group → label → split → pictures
    unreadable: Mapping[str, str]  # image → code
    unlabelled: tuple[str, ...]
    exact_duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, str, int], ...]  # two images and their PDQ distance
    leaks: tuple[Leak, ...]
    conflicts: tuple[tuple[str, str], ...] = ()  # equal or near-duplicate images whose known labels differ
    without_picture: tuple[tuple[str, str], ...] = ()  # (group, label) that no readable picture has
    one_label: tuple[str, ...] = ()  # exclusive groups in which there is nothing to tell apart

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "counts": self.counts,
            "unreadable": dict(self.unreadable),
            "unlabelled": list(self.unlabelled),
            "exact_duplicates": [list(images) for images in self.exact_duplicates],
            "near_duplicates": [list(pair) for pair in self.near_duplicates],
            "leaks": [{"kind": k.kind, "value": k.value, "images": dict(k.images)} for k in self.leaks],
            "conflicts": [list(pair) for pair in self.conflicts],
            "without_picture": [list(pair) for pair in self.without_picture],
            "one_label": list(self.one_label),
        }


@dataclass(frozen=True, slots=True)
class Imported:
    """A manifest, its report, and the PDQ hash by image of every picture with enough detail to match."""

    manifest: Manifest
    report: Report
    hashes: Mapping[str, bytes]


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
class _Row:
    image: str
    labels: Mapping[str, Value]
    split: str
    columns: Mapping[str, str] = field(default_factory=dict)


def from_folders(root: Path, *, name: str, version: str = "1", group: str = "category") -> Imported:
    """A folder per class below `root`, or below a folder per split (train/…, validation/…, test/…).

    Raises DatasetError('manifest_invalid') for a bad name, 'dataset_empty' and, naming it, 'class_missing' for a
    folder without a picture.
    """
    require_identifiers(name, version)
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    splits = {"train", "val", "valid", "validation", "test"}
    bases = folders if folders and {path.name for path in folders} <= splits else [root]
    rows, labels = [], set()
    for base in bases:
        split = "train" if base is root else {"val": "validation", "valid": "validation"}.get(base.name, base.name)
        for folder in sorted(path for path in base.iterdir() if path.is_dir()):
            labels.add(folder.name)
            found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            rows += [_Row(p.relative_to(root).as_posix(), {group: folder.name}, split) for p in found]
    if empty := labels - {str(row.labels[group]) for row in rows}:
        raise DatasetError("class_missing", f"no picture of {', '.join(sorted(empty))}", field=min(empty))
    return _imported(root, name, version, {group: Group("exclusive", tuple(sorted(labels)))}, rows, None)


def from_table(
    table: Path,
    images_root: Path,
    groups: Mapping[str, Column],
    *,
    name: str,
    version: str = "1",
    image: str = "image",
    split: str | None = "split",
    group_column: str | None = None,
) -> Imported:
    """A CSV with a header. `split` and `group_column` name columns; without `split` all is "train".

    Every column that holds no label is kept in the entries. Raises DatasetError: 'table_invalid' with the line (a
    picture on two lines is a mistake in one of them), 'class_missing' for a column without a label, and
    'manifest_invalid' for a bad name.
    """
    require_identifiers(name, version)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines = [(reader.line_num, line) for line in reader]
            header = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError("table_invalid", f"{table}: {error}") from None
    wanted = [image, *(column.name for column in groups.values()), *filter(None, (split, group_column))]
    if missing := [column for column in wanted if column not in header]:
        raise DatasetError("table_invalid", f"{table}: no column {missing[0]!r} among {header}", field=missing[0])
    for number, line in lines:
        if None in line or None in line.values():
            raise DatasetError("table_invalid", f"{table}: line {number} has not {len(header)} cells")
    flags = {group: _is_flag(lines, column) for group, column in groups.items()}
    rows, labels = [], {group: set[str]() for group in groups}
    label_columns = {column.name for column in groups.values()}
    line_of: dict[str, int] = {}
    for number, line in lines:
        values = {group: _cell(line[column.name], column, flags[group], group) for group, column in groups.items()}
        for group, value in values.items():
            labels[group].update([value] if isinstance(value, str) else value or ())
        path = line[image].strip()
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise DatasetError("table_invalid", f"{table}: line {number}: {path!r} leaves the images' folder")
        path = PurePosixPath(path).as_posix()
        if (before := line_of.setdefault(path, number)) != number:
            raise DatasetError("table_invalid", f"{table}: line {number} repeats {path!r} of line {before}")
        kept = {key: text for key, text in line.items() if key not in label_columns | {image, split}}
        rows.append(_Row(path, values, (line[split].strip() if split else "") or "train", kept))
    for group, column in groups.items():
        if not flags[group] and not labels[group]:
            raise DatasetError("class_missing", f"{table}: no label in column {column.name!r}", field=column.name)
    known = {
        group: Group(column.kind, (group,) if flags[group] else tuple(sorted(labels[group])))
        for group, column in groups.items()
    }
    return _imported(images_root, name, version, known, rows, group_column)


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


def _imported(
    root: Path, name: str, version: str, groups: Mapping[str, Group], rows: Sequence[_Row], column: str | None
) -> Imported:
    """Look at every picture once: bytes' hash, decodability, PDQ."""
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(lambda row: _look(root / row.image), rows))
    unreadable = {row.image: result for row, result in zip(rows, seen, strict=True) if isinstance(result, str)}
    entries: list[Entry] = []
    hashes: dict[str, bytes] = {}
    unlabelled: list[str] = []
    for row, result in zip(rows, seen, strict=True):
        if isinstance(result, str):
            continue
        if all(value is None for value in row.labels.values()):
            unlabelled.append(row.image)
            continue
        digest, pdq = result
        entries.append(Entry(row.image, digest, row.labels, row.split, row.columns))
        if pdq is not None:
            hashes[row.image] = pdq
    if not entries:
        raise DatasetError("dataset_empty", f"{root}: none of {len(rows)} pictures can be read and has a label")
    manifest = Manifest(name, version, groups, tuple(entries))
    return Imported(manifest, _report(manifest, hashes, unreadable, unlabelled, column), hashes)


def _look(path: Path) -> tuple[str, bytes | None] | str:
    """(SHA-256, PDQ or None), or the code that says why the picture cannot be read."""
    try:
        data = path.read_bytes()
        picture = images.decode(data, images.Limits(draft_short_side=256))
    except OSError:
        return "missing_file"
    except images.ImageError as error:
        return error.code
    found = facts.facts(picture, ("pdq",))
    return hashlib.sha256(data).hexdigest(), found["pdq"] if found["pdq_quality"] >= MIN_PDQ_QUALITY else None


def _report(
    manifest: Manifest,
    hashes: Mapping[str, bytes],
    unreadable: Mapping[str, str],
    unlabelled: Sequence[str],
    column: str | None,
) -> Report:
    same: dict[str, list[str]] = defaultdict(list)
    for entry in manifest.entries:
        same[entry.sha256].append(entry.image)
    digest = {entry.image: entry.sha256 for entry in manifest.entries}
    names = list(hashes)
    near = [
        (names[i], names[j], distance)
        for i, j, distance in near_pairs([hashes[name] for name in names])
        if digest[names[i]] != digest[names[j]]
    ]
    counts = manifest.counts()
    return Report(
        counts=counts,
        unreadable=unreadable,
        unlabelled=tuple(unlabelled),
        exact_duplicates=tuple(tuple(images) for images in same.values() if len(images) > 1),
        near_duplicates=tuple(near),
        leaks=tuple(leaks(manifest.entries, hashes, column)),
        conflicts=tuple(_conflicts(manifest, [*same.values(), *([a, b] for a, b, _ in near)])),
        without_picture=tuple((g, n) for g, of in counts.items() for n, by in of.items() if not any(by.values())),
        one_label=tuple(n for n, g in manifest.groups.items() if g.kind == "exclusive" and len(g.labels) == 1),
    )


def _conflicts(manifest: Manifest, alike: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """The first of each set of pictures that look alike, with every other one that is labelled otherwise."""
    labels = {entry.image: entry.labels for entry in manifest.entries}
    for first, *others in alike:
        for other in others:
            pairs = zip(labels[first].values(), labels[other].values(), strict=True)
            if any(a is not None and b is not None and set(named(a)) != set(named(b)) for a, b in pairs):
                yield first, other
