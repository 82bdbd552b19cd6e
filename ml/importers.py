"""Datasets from folders and tables: pictures in, a manifest and a report of what is wrong with them out.

Reads only below the folder it is given; copies nothing and asks no network.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ml import facts, images, tables
from ml.errors import DatasetError
from ml.manifest import Entry, Group, Manifest, named, require_identifiers
from ml.splits import Leak, leaks, near_pairs
from ml.tables import Column as Column  # also for callers
from ml.tables import Row

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff"})
MIN_PDQ_QUALITY = 50  # below, PDQ says that the hash is not to be matched

Seen = tuple[str, bytes | None] | str
"""Of one picture: (SHA-256 of its bytes in hex, PDQ of 32 bytes or None), or the code that says why there are none."""


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

    def numbers(self) -> dict[str, int]:
        """How many pictures or groups of pictures ask for a look."""
        return {
            "unreadable": len(self.unreadable),
            "exact_duplicates": len(self.exact_duplicates),
            "near_duplicates": len(self.near_duplicates),
        }

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
            rows += [Row(p.relative_to(root).as_posix(), {group: folder.name}, split) for p in found]
    if not labels:
        raise DatasetError("dataset_empty", f"{root} holds no folders: a folder for each class is expected")
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
    known, rows = tables.read(table, groups, _below_root, image=image, split=split, wanted=group_column)
    return _imported(images_root, name, version, known, rows, group_column)


def _below_root(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} leaves the images' folder")
    return PurePosixPath(path).as_posix()


def _imported(
    root: Path, name: str, version: str, groups: Mapping[str, Group], rows: Sequence[Row], column: str | None
) -> Imported:
    """Look at every picture once: bytes' hash, decodability, PDQ."""
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(lambda row: _look(root / row.image), rows))
    return assemble(name, version, groups, rows, seen, column=column, origin=str(root))


def assemble(
    name: str,
    version: str,
    groups: Mapping[str, Group],
    rows: Sequence[Row],
    seen: Sequence[Seen],
    *,
    column: str | None = None,
    origin: str = "dataset",
) -> Imported:
    """The manifest of rows whose pictures were looked at already, and its report; `seen` is in the rows' order.

    Raises DatasetError('dataset_empty'), which names the `origin`, and 'manifest_invalid' for a bad name.
    """
    require_identifiers(name, version)
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
        raise DatasetError("dataset_empty", f"{origin}: none of {len(rows)} pictures can be read and has a label")
    manifest = Manifest(name, version, groups, tuple(entries))
    return Imported(manifest, _report(manifest, hashes, unreadable, unlabelled, column), hashes)


def _look(path: Path) -> Seen:
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
