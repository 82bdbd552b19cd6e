"""What `tagmill submit` reads (lists of URLs, stdin, folders of pictures) as request bodies; it sends nothing."""

import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.client import Body, ClientError
from worker.screen import counted, visible
from worker.url_lists import UrlList

NDJSON = "application/x-ndjson"
ZIP = "application/zip"
PICTURES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff", ".heic"}
)
PART_FILES = 2_000
PART_BYTES = 512 * 1024 * 1024
MAX_LABEL = 180
SHOWN = 10
# What the API refuses in the names of a ZIP: control characters, backslashes, bytes that are not UTF-8, drive letters.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|(?<=^[A-Za-z]):")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Upload:
    """One request body. ``again``: the body can be read a second time, so a broken request may be repeated.

    ``skipped()``: wrong lines that the last reading left out.
    """

    body: Body
    content_type: str
    label: str
    again: bool = True
    skipped: Callable[[], int] = lambda: 0


def uploads(source: str, stdin: Iterable[bytes], *, skip: bool = False, say: Say = lambda text: None) -> list[Upload]:
    """The bodies for a path or ``-``: one for a list, one per part for a folder. ClientError if there is nothing.

    ``skip``: wrong lines are left out. ``say`` is told what else is not sent, or not as it is.
    """
    path = Path(source)
    if source != "-" and path.is_dir():
        return _folder(path, say)
    if source != "-" and not path.is_file():
        raise ClientError("no_such_file", f"{source}: no such file or folder")
    urls = UrlList("" if source == "-" else path.suffix.lower(), skip=skip, say=say)
    if source == "-":
        return [Upload(lambda: urls.ndjson(stdin), NDJSON, "standard input", False, lambda: urls.skipped)]
    return [Upload(lambda: _file(path, urls), NDJSON, _label(path), skipped=lambda: urls.skipped)]


def _label(path: Path) -> str:
    """The file's or folder's name as a job's: the API takes no control characters in it."""
    return visible(path.resolve().name).replace("\n", " ")[:MAX_LABEL] or "pictures"


def _file(path: Path, urls: UrlList) -> Iterator[bytes]:
    try:
        with open(path, "rb") as lines:
            yield from urls.ndjson(lines)
    except PermissionError as error:
        raise ClientError("unreadable_file", f"{path}: {error.strerror}") from error


def pictures(folder: Path) -> list[Path]:
    """The pictures under a folder by their names' endings, sorted; hidden files and folders are left out."""
    return sorted(path for path in _files(folder) if path.suffix.lower() in PICTURES)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _folder(folder: Path, say: Say) -> list[Upload]:
    endings = Counter(path.suffix.lower() for path in _files(folder))
    others = Counter({ending: number for ending, number in endings.items() if ending not in PICTURES})
    left_out = counted(others.total(), "file") + " left out, without a known picture ending: "
    left_out += ", ".join(
        f"{number} {visible(ending) or 'with none'}"
        for ending, number in sorted(others.items(), key=lambda other: (-other[1], other[0] or "~"))[:SHOWN]
    )
    found = pictures(folder)
    if not found:
        without = f" ({left_out})" if others else ""
        raise ClientError("no_pictures", f"{folder}: no pictures ({', '.join(sorted(PICTURES))}) in it{without}")
    if others:
        say(left_out)
    names = member_names(folder, found)
    renamed = [path for path in found if names[path] != path.relative_to(folder).as_posix()]
    for path in renamed[:SHOWN]:
        shown = visible(path.relative_to(folder)).replace("\n", "\\n")
        say(f"{shown} is sent as {names[path]}, because a ZIP cannot hold its name")
    if len(renamed) > SHOWN:
        say(f"… and {counted(len(renamed) - SHOWN, 'more such name')}")
    parts = list(_parts(found))
    name = _label(folder)
    labels = [f"{name} {n}/{len(parts)}" if len(parts) > 1 else name for n in range(1, len(parts) + 1)]
    return [
        Upload(lambda part=part: zipped(part, names), ZIP, label)  # type: ignore[misc]
        for part, label in zip(parts, labels, strict=True)
    ]


def member_names(folder: Path, paths: list[Path]) -> dict[Path, str]:
    """A name in a ZIP for each file: the one relative to the folder, with `%5C` for what the API refuses in it."""
    own = {path: path.relative_to(folder).as_posix() for path in paths}
    taken = set(own.values())
    for path, name in own.items():
        safe = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in os.fsencode(found[0])), name)
        # Next to `a%0A.jpg`, a second one may not have the same name.
        while safe != name and safe in taken:
            safe = f"%{safe}"
        taken.add(safe)
        own[path] = safe
    return own


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


def zipped(paths: list[Path], names: dict[Path, str]) -> Iterator[bytes]:
    """A ZIP of the files under these names, written as it is sent: one picture in memory at a time."""
    sink = _Sink()
    # Stored, not deflated: pictures are compressed already. A fixed date, so that a second try is the same bytes.
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise ClientError("unreadable_file", f"{path}: {error.strerror}") from error
            archive.writestr(zipfile.ZipInfo(names[path]), data)
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
