"""Reads the labels of a foreign model, in the order of its outputs, from a text file, JSON or CSV. Knows no model."""

import csv
import json
from pathlib import Path
from typing import Any, Final

from worker.model_trial import ImportRefused

MAX_BYTES: Final = 32 << 20
FIELDS: Final = ("name", "group", "threshold", "parent", "taxonomy_id")

Label = dict[str, Any]


def read(path: Path, group: str) -> list[Label]:
    """The labels as a card writes them; those without a group get `group`. Told by content: JSON, else CSV if the first
    line names columns, else one name a line.

    JSON: ["a", …], [{"name": "a", "threshold": 0.5, …}, …], or {"0": "a", …} or {"a": 0, …} with every position once.
    Raises ImportRefused('labels_invalid') naming the line or entry.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ImportRefused("labels_invalid", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ImportRefused("labels_invalid", f"{path} is no UTF-8 text") from None
    if len(data) > MAX_BYTES:
        raise ImportRefused("labels_invalid", f"{path} is larger than {MAX_BYTES} bytes")
    if text.lstrip()[:1] in ("[", "{"):
        labels = _json(path, text)
    elif "name" in _columns(text):
        labels = _csv(path, text)
    else:
        lines = text.rstrip("\n").split("\n") if text.strip() else []
        labels = [{"name": _name(path, f"line {at}", line.strip())} for at, line in enumerate(lines, 1)]
    if not labels:
        raise ImportRefused("labels_invalid", f"{path} holds no labels")
    return [{"group": group} | label for label in labels]


def _columns(text: str) -> list[str]:
    return [name.strip() for name in text.split("\n", 1)[0].split(",")]


def _json(path: Path, text: str) -> list[Label]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImportRefused("labels_invalid", f"{path} is not JSON: {error}") from None
    entries = _ordered(path, document) if isinstance(document, dict) else document
    labels = []
    for at, entry in enumerate(entries):
        label = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(label, dict) or set(label) - set(FIELDS):
            raise ImportRefused("labels_invalid", f"{path}, entry {at}: a name, or an object of {', '.join(FIELDS)}")
        labels.append({key: value for key, value in label.items() if value is not None})
        _name(path, f"entry {at}", label.get("name"))
    return labels


def _ordered(path: Path, document: dict[str, Any]) -> list[Any]:
    """{"0": "a", "1": "b"} or {"a": 0, "b": 1} → ["a", "b"]."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in document.values()):
        document = {str(at): name for name, at in document.items()}
    wanted = [str(at) for at in range(len(document))]
    if set(document) != set(wanted):
        raise ImportRefused("labels_invalid", f"{path}: expected every position from 0 to {len(document) - 1} once")
    return [document[at] for at in wanted]


def _csv(path: Path, text: str) -> list[Label]:
    rows = csv.DictReader(text.splitlines())
    rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    if unknown := set(rows.fieldnames) - set(FIELDS):
        raise ImportRefused("labels_invalid", f"{path}: {min(unknown)!r} is none of the columns {', '.join(FIELDS)}")
    labels: list[Label] = []
    for at, row in enumerate(rows, 2):
        if None in row:
            raise ImportRefused("labels_invalid", f"{path}, line {at}: more values than columns")
        label: Label = {key: value.strip() for key, value in row.items() if value and value.strip()}
        _name(path, f"line {at}", label.get("name"))
        if "threshold" in label:
            label["threshold"] = _number(path, at, label["threshold"])
        labels.append(label)
    return labels


def _number(path: Path, line: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ImportRefused("labels_invalid", f"{path}, line {line}: the threshold {text!r} is no number") from None


def _name(path: Path, where: str, name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ImportRefused("labels_invalid", f"{path}, {where}: a label needs a name")
    return name
