"""Uploaded pictures: from a multipart body or a ZIP into the blob store, as a stream. Never looks at a picture.

Bytes are kept aside until the whole upload is found good, and published under their own hash just before the job is
stored: a refused upload leaves nothing behind. Only if the database fails in between, bytes stay that no row names and
no client can read, until maintenance removes them; the client's second try finds them again.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import IO, Any, Final, Self

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData, Preamble

from api import archives, bodies
from api.errors import Fault, Problem
from api.routing import Call
from api.spool import pieces
from db.blobs import Staged
from db.errors import BlobTooLarge
from db.jobs import NewItem

MAX_OPTIONS: Final = 64 * 1024
MAX_LABEL: Final = 255
# What the multipart parser may buffer: a boundary, a part's headers, one piece of data.
_BUFFER: Final = 1024 * 1024
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def label(name: str) -> str:
    """A client's file name as it is shown later: no control or direction characters, no step up, a bounded length.

    It is text for people and never becomes a path.
    """
    clean = _UNSAFE.sub("", unicodedata.normalize("NFC", name))
    clean = "".join(character for character in clean if unicodedata.category(character) != "Cf")
    steps = [step for step in re.split(r"[/\\]", clean) if step.strip() not in ("", ".", "..")]
    return "/".join(steps)[-MAX_LABEL:] or "unnamed"


class Parcel:
    """The pictures of one upload. At the end of the block, those that were not published are gone."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._staged: list[Staged] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.house.blobs.discard(self._staged)

    def keep(self, data: Iterable[bytes], name: str, place: int) -> tuple[NewItem, bytes]:
        """The item that names these bytes, and their SHA-256."""
        limit = self._call.settings.max_picture_bytes
        try:
            staged = self._call.house.blobs.stage_raw(self._call.account_id, data, limit)
        except BlobTooLarge as error:
            detail = f"A file may have {limit} bytes at most."
            raise Problem("file_too_large", detail, [Fault("file_too_large", detail, item=place, file=name)]) from error
        self._staged.append(staged)
        return NewItem(filename=name, raw_key=staged.key), staged.sha256

    def deliver(self) -> None:
        """To be called before the transaction that stores the job: it must not name what is not there."""
        self._call.house.blobs.place(self._staged)
        self._staged.clear()


def from_zip(call: Call, file: IO[bytes], parcel: Parcel) -> list[NewItem]:
    """Every picture of the archive, kept; none is unless the whole directory is sound."""
    found = archives.members(file, call.settings)
    if not found:
        raise Problem("empty_job", "The ZIP holds no file.")
    if len(found) > call.settings.max_items_per_job:
        raise Problem("too_many_items", f"A job may have {call.settings.max_items_per_job} items at most.")
    return [parcel.keep(archives.unpack(file, member), label(member.name), member.place)[0] for member in found]


class Multipart:
    """A multipart/form-data body, read once: each part with a file name is a picture, the part `options` is JSON.

    `fingerprint` is over names and contents, not over the boundary, which clients choose anew for each try.
    """

    def __init__(self, call: Call, request: Request, parcel: Parcel) -> None:
        self._call = call
        self._parcel = parcel
        self._request = request
        self._hash = hashlib.sha256()
        self.items: list[NewItem] = []
        self.options: dict[str, Any] | None = None

    @property
    def fingerprint(self) -> bytes:
        return self._hash.digest()

    def read(self) -> None:
        """Keep the pictures and the options. Problems: `invalid_multipart`, `too_many_files`, `file_too_large`, …"""
        settings = self._call.settings
        # One part more than the limit on files: the options.
        events = form_events(
            self._call,
            self._request,
            most_bytes=settings.max_multipart_bytes,
            most_parts=settings.max_files_per_upload + 1,
        )
        for event in events:
            if isinstance(event, File) and event.name != "options":
                self._picture(event, events)
            elif isinstance(event, File | Field):
                self._options(event, events)
        if not self.items:
            raise Problem("empty_job", "The body holds no file.")

    def _picture(self, part: File, events: Iterator[Event]) -> None:
        data = part_data(events)
        if not part.filename:
            # What a browser sends for a file input that was left empty.
            for _ in data:
                pass
            return
        if len(self.items) >= self._call.settings.max_items_per_job:
            limit = self._call.settings.max_items_per_job
            raise Problem("too_many_items", f"A job may have {limit} items at most.")
        item, digest = self._parcel.keep(data, label(part.filename), len(self.items))
        self.items.append(item)
        self._hash.update(f"{item.filename}\0".encode() + digest)

    def _options(self, part: Field | File, events: Iterator[Event]) -> None:
        if part.name != "options" or self.options is not None:
            code = "unknown_field" if part.name != "options" else "duplicate_field"
            fault = Fault(code, "Parts are files, and one `options`.", field=str(part.name)[:100])
            raise Problem("invalid_body", "See `errors`.", [fault])
        text = b""
        for piece in part_data(events):
            text += piece
            if len(text) > MAX_OPTIONS:
                fault = Fault("too_long", f"The options may have {MAX_OPTIONS} bytes.", field="options")
                raise Problem("invalid_body", "See `errors`.", [fault])
        try:
            value, end = bodies.decode(text.decode().strip())
            if end != len(text.decode().strip()):
                raise ValueError("text after the value")
        except ValueError as error:
            why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise Problem("invalid_json", f"The part `options` is not JSON: {why}.") from None
        if not isinstance(value, dict):
            fault = Fault("wrong_type", "The options are an object.", field="options")
            raise Problem("invalid_body", "See `errors`.", [fault])
        self.options = value
        self._hash.update(b"options\0" + hashlib.sha256(text).digest())


def form_events(call: Call, request: Request, *, most_bytes: int, most_parts: int) -> Iterator[Event]:
    """The parts of a multipart body as they arrive. Problems: `invalid_multipart`, `too_many_files` above `most_parts`,
    and those of `api.spool.pieces`."""
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary or len(boundary) > 200 or not boundary.isascii():
        raise Problem("invalid_multipart", "The content type names no usable boundary.")
    decoder = MultipartDecoder(boundary.encode(), _BUFFER + 512 * 1024, max_parts=most_parts)
    incoming = pieces(request, call.settings, most_bytes)
    while True:
        try:
            event = decoder.next_event()
            if isinstance(event, NeedData):
                decoder.receive_data(next(incoming, None))
                continue
        except RequestEntityTooLarge:
            if decoder._parts_decoded >= most_parts:
                raise Problem("too_many_files", f"A body may have {most_parts} parts at most.") from None
            detail = "A part's headers or the text before the first part are too long."
            raise Problem("invalid_multipart", detail) from None
        except (ValueError, LookupError, AttributeError):
            raise Problem("invalid_multipart", "The body is not multipart/form-data, or ends early.") from None
        if isinstance(event, Epilogue):
            return
        if not isinstance(event, Preamble):
            yield event


def part_data(events: Iterator[Event]) -> Iterator[bytes]:
    """The bytes of the part whose head was just read, up to its end."""
    for event in events:
        assert isinstance(event, Data)
        if event.data:
            yield event.data
        if not event.more_data:
            return
