"""What `tagmill submit` reads (lists of URLs, stdin, folders of pictures) as request bodies; it sends nothing.

Lists become NDJSON with one line per line of the file, so that the line number in an error is the file's own.
"""

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.client import Body, ClientError

NDJSON = "application/x-ndjson"
ZIP = "application/zip"
PICTURES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff", ".heic"}
)
PART_FILES = 2_000
PART_BYTES = 512 * 1024 * 1024
COLUMNS = ("url", "id", "product_id")


@dataclass(frozen=True)
class Upload:
    """One request body. ``again``: the body can be read a second time, so a broken request may be repeated."""

    body: Body
    content_type: str
    label: str
    again: bool = True


def uploads(source: str, stdin: Iterable[bytes]) -> list[Upload]:
    """The bodies for a path or ``-``: one for a list, one per part for a folder. ClientError if there is nothing."""
    if source == "-":
        return [Upload(lambda: ndjson(stdin, ""), NDJSON, "standard input", again=False)]
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise ClientError("no_such_file", f"{source}: no such file or folder")
    return [Upload(lambda: _file(path), NDJSON, path.name)]


def _file(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as lines:
        yield from ndjson(lines, path.suffix.lower())


def ndjson(lines: Iterable[bytes], suffix: str) -> Iterator[bytes]:
    """NDJSON of a list. The suffix says what it is (.txt, .csv, .jsonl); with another one, its first line does."""
    rest = iter(lines)
    first = b""
    skipped = 0
    for first in rest:
        first = first.removeprefix(b"\xef\xbb\xbf")
        if first.strip():
            break
        skipped += 1
    yield b"\n" * skipped
    whole = _chain(first, rest)
    kind = {".txt": "txt", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(suffix) or _sniff(first)
    yield from {"txt": _from_txt, "csv": _from_csv, "jsonl": _from_jsonl}[kind](whole)


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


def _from_jsonl(lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield line if line.endswith(b"\n") else line + b"\n"


def _from_txt(lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        url = line.decode("utf-8", "replace").strip()
        yield b"\n" if not url or url.startswith("#") else row({"url": url})


def _from_csv(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Columns url, id, product_id by name, others left out. Without a header, the first column is the URL."""
    reader = csv.reader(line.decode("utf-8", "replace") for line in lines)
    names: list[str] = []
    written = 0
    for cells in reader:
        line = reader.line_num
        if not names:
            names = [cell.strip().lower() for cell in cells]
            if "url" in names:
                continue
            if not names or not names[0].startswith(("http://", "https://")):
                raise ClientError("no_url_column", "the CSV has no column named url")
            names = ["url", *[""] * (len(cells) - 1)]
        yield b"\n" * (line - 1 - written)
        written = line
        found = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if name in COLUMNS}
        yield row({name: cell for name, cell in found.items() if cell or name == "url"}) if cells else b"\n"


def row(item: dict[str, Any]) -> bytes:
    """One line of NDJSON."""
    return json.dumps(item, ensure_ascii=False).encode() + b"\n"


def pictures(folder: Path) -> list[Path]:
    """The pictures under a folder by their names' endings, sorted; hidden files and folders are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _folder(folder: Path) -> list[Upload]:
    found = pictures(folder)
    if not found:
        raise ClientError("no_pictures", f"{folder}: no pictures ({', '.join(sorted(PICTURES))}) in it")
    parts = list(_parts(found))
    labels = [f"{folder.name} {n}/{len(parts)}" if len(parts) > 1 else folder.name for n in range(1, len(parts) + 1)]
    return [
        Upload(lambda part=part: zipped(folder, part), ZIP, label)  # type: ignore[misc]
        for part, label in zip(parts, labels, strict=True)
    ]


def _parts(found: list[Path]) -> Iterator[list[Path]]:
    """Pieces that stay below the API's limits for one ZIP."""
    part: list[Path] = []
    size = 0
    for path in found:
        bytes_ = path.stat().st_size
        if part and (len(part) >= PART_FILES or size + bytes_ > PART_BYTES):
            yield part
            part, size = [], 0
        part.append(path)
        size += bytes_
    yield part


def zipped(folder: Path, paths: list[Path]) -> Iterator[bytes]:
    """A ZIP of the files, names relative to the folder, written as it is sent: one picture in memory at a time."""
    sink = _Sink()
    # Stored, not deflated: pictures are compressed already. A fixed date, so that a second try is the same bytes.
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())
            yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that cannot seek: zipfile then writes a stream."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole
