"""The three forms of an upload for moderation: JSON with a URL, the picture's bytes, or a form. Stores no row.

A form and a request with bare bytes name what JSON has in `subject` as `user` and `product`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from flask import Request
from pydantic import ValidationError
from werkzeug.sansio.multipart import Field, File

from api.errors import Fault, Problem, faults_of
from api.moderation_schemas import ModerationIn, UploadOptions
from api.routing import Call
from api.small_body import checked, small_json
from api.spool import pieces
from api.uploads import Parcel, form_events, label, part_data
from db import urls
from db.codes import CODES
from db.jobs import NewItem
from db.moderations import Asked

FLAT: Final = ("id", "user", "product", "context", "policy", "category")
_MAX_FIELD: Final = 4096
_FORM_OVERHEAD: Final = 64 * 1024
_EMPTY: Final = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class Upload:
    """An upload as it was sent, ready to be stored once `deliver` has placed its bytes. `fingerprint` is of all that
    makes the request what it is."""

    asked: Asked
    item: NewItem
    fingerprint: bytes
    deliver: Callable[[], None]


@contextmanager
def read(call: Call, sent: Request, query: Mapping[str, str]) -> Iterator[Upload]:
    """The upload in the request's body; bytes that were not delivered are gone at the end of the block."""
    kind = sent.mimetype
    with Parcel(call) as parcel:
        if kind.startswith("image/") or kind == "application/octet-stream":
            yield _bytes(call, sent, query, parcel)
            return
        if query:
            faults = [Fault("unknown_field", "It belongs into the body.", field=name) for name in query]
            raise Problem("invalid_parameter", "Say in one place what the picture is.", faults)
        if kind == "multipart/form-data":
            yield _form(call, sent, parcel)
        elif kind == "application/json":
            yield _url(call)
        else:
            allowed = "application/json, multipart/form-data, image/* or application/octet-stream"
            raise Problem("unsupported_media_type", f"Send {allowed}.")


def _url(call: Call) -> Upload:
    value, data = small_json(call)
    body = checked(ModerationIn, {} if value is None else value)
    if (code := urls.check(body.url)) is not None:
        raise Problem("invalid_body", "See `errors`.", [Fault(code, CODES[code].meaning, field="url")])
    return Upload(_asked(body), _item(body, NewItem(url=body.url)), hashlib.sha256(data).digest(), lambda: None)


def _bytes(call: Call, sent: Request, query: Mapping[str, str], parcel: Parcel) -> Upload:
    options = _flat(query, "invalid_parameter")
    data = pieces(sent, call.settings, call.settings.max_picture_bytes)
    item, sha256 = parcel.keep(data, "", 0)
    if sha256 == _EMPTY:
        raise Problem("no_picture", "The body is empty.")
    return Upload(_asked(options), _item(options, replace(item, filename=None)), sha256, parcel.deliver)


def _form(call: Call, sent: Request, parcel: Parcel) -> Upload:
    limit = call.settings.max_picture_bytes + _FORM_OVERHEAD
    events = form_events(call, sent, most_bytes=limit, most_parts=len(FLAT) + 2)
    texts: dict[str, str] = {}
    picture: tuple[NewItem, bytes] | None = None
    for event in events:
        if isinstance(event, File) and event.filename:
            if picture is not None:
                raise Problem("too_many_files", "One picture a request; a job takes many: POST /v1/jobs.")
            picture = parcel.keep(part_data(events), label(event.filename), 0)
        elif isinstance(event, File):
            for _ in part_data(events):  # what a browser sends for a file input that was left empty
                pass
        elif isinstance(event, Field):
            _text(event, events, texts)
    options = _flat(texts, "invalid_body")
    if picture is None:
        raise Problem("no_picture", "The form holds no file.")
    item, sha256 = picture
    if sha256 == _EMPTY:
        raise Problem("no_picture", "The form's file is empty.")
    fingerprint = hashlib.sha256(repr(sorted(texts.items())).encode() + (item.filename or "").encode() + sha256)
    return Upload(_asked(options), _item(options, item), fingerprint.digest(), parcel.deliver)


def _text(part: Field, events: Iterator[Any], texts: dict[str, str]) -> None:
    """One field of the form. An unknown one is refused before its text is read."""
    name = str(part.name)[:100]
    if name not in FLAT or name in texts:
        code = "duplicate_field" if name in FLAT else "unknown_field"
        raise Problem("invalid_body", "See `errors`.", [Fault(code, f"Fields are {', '.join(FLAT)}.", field=name)])
    data = b""
    for piece in part_data(events):
        data += piece
        if len(data) > _MAX_FIELD:
            raise Problem("invalid_body", "See `errors`.", [Fault("too_long", "The field is too long.", field=name)])
    try:
        texts[name] = data.decode()
    except UnicodeDecodeError:
        raise Problem("invalid_utf8", f"The field `{name}` is not UTF-8.") from None


def _flat(texts: Mapping[str, str], problem: str) -> UploadOptions:
    """Options from a form or a query, where an empty text says nothing."""
    given: dict[str, Any] = {name: text for name, text in texts.items() if text}
    subject = {name: given.pop(name) for name in ("user", "product") if name in given}
    try:
        return UploadOptions.model_validate(given | ({"subject": subject} if subject else {}))
    except ValidationError as error:
        faults = [replace(fault, field=(fault.field or "").removeprefix("subject.")) for fault in faults_of(error)]
        raise Problem(problem, "See `errors`.", faults) from error


def _asked(options: UploadOptions) -> Asked:
    subject = options.subject
    user, product = (None, None) if subject is None else (subject.user, subject.product)
    return Asked(user=user, product=product, context=options.context, policy=options.policy)


def _item(options: UploadOptions, item: NewItem) -> NewItem:
    """The item that carries the picture; a subject that is a product has it in its catalog."""
    product = None if options.subject is None else options.subject.product
    return replace(item, client_id=options.id, product_id=product, category=options.category)
