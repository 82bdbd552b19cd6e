"""Small JSON bodies, read whole, and the bookkeeping of Idempotency-Key around them. Knows no resource."""

import re
from typing import Any, Final, TypeVar

from flask import Request, Response, request
from pydantic import BaseModel, ValidationError

from api.answers import json_answer
from api.bodies import decode
from api.errors import Fault, Problem, faults_of
from api.routing import Call
from api.spool import pieces
from db.idempotency import Stored

MAX_BYTES: Final = 64 * 1024
IDEMPOTENCY_HEADER: Final = {"Idempotency-Key": "Up to 255 visible ASCII characters; kept for at least 24 hours."}
Body = TypeVar("Body", bound=BaseModel)
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


def small_json(call: Call, max_bytes: int = MAX_BYTES) -> tuple[Any, bytes]:
    """The JSON value of the body and its bytes; (None, b"") when there is no body.

    Problems: `unsupported_media_type`, `invalid_json`, and those of `api.spool.pieces`.
    """
    data = b"".join(pieces(request, call.settings, max_bytes))
    if not data.strip():
        return None, b""
    if request.mimetype != "application/json":
        raise Problem("unsupported_media_type", "Send application/json.")
    return decoded(data), data


def decoded(data: bytes) -> Any:
    """The one JSON value in these bytes; Problem `invalid_json`."""
    try:
        text = data.decode().strip()
        value, end = decode(text)
        if end != len(text):
            raise ValueError("text after the value")
    except ValueError as error:
        why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Problem("invalid_json", f"The body is not JSON: {why}.") from None
    return value


def checked(model: type[Body], value: Any) -> Body:
    """The value as the model; Problem `invalid_body` with a row for each fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Problem("invalid_body", "See `errors`.", faults_of(error)) from error
    except UnicodeEncodeError:
        # Half a surrogate where pydantic compares with its own texts: it says neither where nor what.
        fault = Fault("bad_characters", "A text holds half a surrogate pair.")
        raise Problem("invalid_body", "See `errors`.", [fault]) from None


def idempotency_key(sent: Request) -> str | None:
    """The request's key, if it has one; Problem `invalid_idempotency_key`."""
    key = sent.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem("invalid_idempotency_key", "1 to 255 visible ASCII characters, no space.")
    return key


def replayed(stored: Stored, fingerprint: bytes) -> Response:
    """The first answer again; Problem `idempotency_key_reused` if that was to another request."""
    if stored.request_hash != fingerprint:
        raise Problem("idempotency_key_reused", "The first request with this key was another one; take a new key.")
    headers = {"Idempotent-Replayed": "true"} | ({"Location": stored.location} if stored.location else {})
    return json_answer(stored.response, stored.status, headers, sort=True)
