"""The manifest of a dataset: which pictures, by hash, with which labels, in which split; opens no picture.

The SHA-256 of its canonical content is what a model's card and a checkpoint remember. `Manifest.load` is the
only way in for a file that somebody else wrote: every error names the line or the field.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast, get_args

from ml.errors import DatasetError

Kind = Literal["exclusive", "attributes"]
Value = str | tuple[str, ...] | None

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Group:
    """Labels that are decided together: of `exclusive` ones exactly one holds, of `attributes` any number."""

    kind: Kind
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture. `image`: path below the images' root, with forward slashes; `sha256`: of the file's bytes.

    `labels` by group: the name for an exclusive group, a tuple of names for attributes, None where nobody
    knows (left out of the loss and of the metrics). `columns`: whatever else is known, for slices and splits.
    """

    image: str
    sha256: str
    labels: Mapping[str, Value]
    split: str
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version of a dataset. The order of labels is the order of a model's outputs."""

    name: str
    version: str
    groups: Mapping[str, Group]
    entries: tuple[Entry, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the canonical content: neither white space nor the order of keys counts."""
        document = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(document.encode()).hexdigest()

    def split(self, name: str) -> tuple[Entry, ...]:
        """The entries of one split, in order."""
        return tuple(entry for entry in self.entries if entry.split == name)

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Number of pictures by group, label and split; labels that no picture has are counted as 0."""
        splits = sorted({entry.split for entry in self.entries})
        table = {
            group: {label: dict.fromkeys(splits, 0) for label in members.labels}
            for group, members in self.groups.items()
        }
        for entry in self.entries:
            for group, value in entry.labels.items():
                for label in named(value):
                    table[group][label][entry.split] += 1
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        groups = {name: {"kind": group.kind, "labels": list(group.labels)} for name, group in self.groups.items()}
        return {"name": self.name, "version": self.version, "groups": groups, "entries": [*map(_row, self.entries)]}

    def save(self, path: Path) -> None:
        """Write JSON with one entry a line; a reader never sees half a file."""
        document = self.to_dict()
        rows = document.pop("entries")
        head = json.dumps(document, ensure_ascii=False, indent=1).removesuffix("\n}")
        body = ",\n".join(json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows)
        part = path.with_name(f"{path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            file.write(f'{head},\n "entries": [\n{body}\n]}}\n')
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    @staticmethod
    def load(path: Path) -> "Manifest":
        """Read and check. Raises DatasetError: manifest_missing, or manifest_invalid with line or field."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DatasetError("manifest_missing", f"{path}: {error.strerror}") from None
        except json.JSONDecodeError as error:
            raise DatasetError("manifest_invalid", f"{path}: line {error.lineno}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise DatasetError("manifest_invalid", f"{path}: {error}") from None
        return from_dict(document)


def named(value: Value) -> tuple[str, ...]:
    """The labels that a value of either kind names."""
    return () if value is None else (value,) if isinstance(value, str) else value


def from_dict(document: object) -> Manifest:
    """Check a decoded manifest. Raises DatasetError('manifest_invalid') naming the field."""
    content = _object(document, "manifest")
    if unknown := set(content) - {"name", "version", "groups", "entries"}:
        raise _invalid(min(unknown), "is not a field of a manifest")
    groups = {name: _group(value, f"groups.{name}") for name, value in _object(content.get("groups"), "groups").items()}
    if not groups:
        raise _invalid("groups", "must name at least one group")
    rows = content.get("entries")
    if not isinstance(rows, list):
        raise _invalid("entries", "must be a list")
    entries = tuple(_entry(row, f"entries[{at}]", groups) for at, row in enumerate(rows))
    _refuse_twice((entry.image for entry in entries), "entries", "image")
    require_identifiers(content.get("name"), content.get("version"))
    return Manifest(content["name"], content["version"], groups, entries)


def require_identifiers(name: object, version: object) -> None:
    """Raises DatasetError('manifest_invalid') naming the field that cannot be a dataset's name or version."""
    for field, value in (("name", name), ("version", version)):
        if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
            raise _invalid(field, f"must match {_IDENTIFIER.pattern}")


def _row(entry: Entry) -> dict[str, Any]:
    row = asdict(entry)
    row["labels"] = {group: list(v) if isinstance(v, tuple) else v for group, v in entry.labels.items()}
    row["columns"] = dict(entry.columns)
    return row


def _invalid(field: str, why: str) -> DatasetError:
    return DatasetError("manifest_invalid", f"{field} {why}", field=field)


def _object(value: object, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(field, "must be an object")
    return value


def _texts(value: object, field: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise _invalid(field, "must be a list of texts")
    return tuple(value)


def _refuse_twice(values: Iterable[str], field: str, what: str) -> None:
    seen: set[str] = set()
    for at, value in enumerate(values):
        if value in seen:
            raise _invalid(f"{field}[{at}]", f"repeats the {what} {value!r}")
        seen.add(value)


def _group(value: object, field: str) -> Group:
    content = _object(value, field)
    if content.get("kind") not in get_args(Kind):
        raise _invalid(f"{field}.kind", f"must be one of {', '.join(get_args(Kind))}")
    labels = _texts(content.get("labels"), f"{field}.labels")
    if not labels:
        raise _invalid(f"{field}.labels", "must not be empty")
    _refuse_twice(labels, f"{field}.labels", "label")
    return Group(cast("Kind", content["kind"]), labels)


def _entry(value: object, field: str, groups: Mapping[str, Group]) -> Entry:
    row = _object(value, field)
    if set(row) != {"image", "sha256", "labels", "split", "columns"}:
        raise _invalid(field, "must have exactly image, sha256, labels, split and columns")
    image = row["image"]
    if not isinstance(image, str) or not image or PurePosixPath(image).is_absolute() or ".." in image.split("/"):
        raise _invalid(f"{field}.image", "must be a path below the images' root")
    if not isinstance(row["sha256"], str) or not _SHA256.fullmatch(row["sha256"]):
        raise _invalid(f"{field}.sha256", "must be 64 lowercase hex digits")
    if not isinstance(row["split"], str) or not row["split"]:
        raise _invalid(f"{field}.split", "must be a text")
    columns = _object(row["columns"], f"{field}.columns")
    if not all(isinstance(text, str) for text in columns.values()):
        raise _invalid(f"{field}.columns", "must hold texts")
    labels = _object(row["labels"], f"{field}.labels")
    if set(labels) != set(groups):
        raise _invalid(f"{field}.labels", f"must name exactly the groups {sorted(groups)}")
    checked = {name: _value(labels[name], f"{field}.labels.{name}", group) for name, group in groups.items()}
    return Entry(image, row["sha256"], checked, row["split"], columns)


def _value(value: object, field: str, group: Group) -> Value:
    if value is None:
        return None
    names = _texts([value] if group.kind == "exclusive" else value, field)
    if unknown := set(names) - set(group.labels):
        raise _invalid(field, f"names {min(unknown)!r}, which its group does not have")
    if group.kind == "exclusive":
        return names[0]
    _refuse_twice(names, field, "label")
    return names
