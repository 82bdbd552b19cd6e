"""The one table of error codes, and the RFC 9457 problem documents made of it. When they occur is not decided here."""

import errno
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, Literal

from flask import Flask, Response, g
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from api.answers import json_bytes
from db.errors import BlobsAway, DbError, Unavailable
from db.limits import TryLater

log = logging.getLogger("tagmill.api")
MAX_FAULTS: Final = 100
MAX_NAME: Final = 300
PROBLEM_TYPE: Final = "application/problem+json"

# code → (HTTP status, title). The codes are stable: clients may switch on them.
ERRORS: Final[dict[str, tuple[int, str]]] = {
    # who asks
    "missing_key": (401, "An API key is needed"),
    "invalid_key": (401, "The API key is not valid"),
    "missing_scope": (403, "The API key lacks the scope"),
    # what is asked for
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "not_acceptable": (406, "No such representation"),
    "conflict": (409, "The state does not allow it"),
    "invalid_parameter": (400, "A query parameter is wrong"),
    "invalid_cursor": (400, "The cursor is not one of ours"),
    "bad_request": (400, "Bad request"),
    # how much
    "rate_limited": (429, "Too many requests of this account"),
    "quota_exceeded": (429, "Enough items of this account for a day"),
    # idempotency
    "invalid_idempotency_key": (400, "The Idempotency-Key is malformed"),
    "idempotency_in_flight": (409, "A request with this Idempotency-Key is being served"),
    "idempotency_key_reused": (422, "The Idempotency-Key was used with another request"),
    # bodies
    "unsupported_media_type": (415, "Content type not supported"),
    "unsupported_encoding": (415, "Content-Encoding not supported"),
    "body_too_large": (413, "The body is too large"),
    "body_incomplete": (400, "The body ended early"),
    "body_timeout": (408, "The body did not arrive in time"),
    "invalid_json": (400, "Not JSON"),
    "invalid_csv": (400, "Not CSV"),
    "invalid_utf8": (400, "Not UTF-8"),
    "invalid_multipart": (400, "Not a multipart body"),
    "invalid_body": (422, "The body breaks the schema"),
    "invalid_items": (422, "Some items are wrong"),
    "empty_job": (422, "A job needs at least one item"),
    "unknown_policy": (422, "There is no such policy"),
    "no_picture": (422, "The request holds no picture"),
    "not_appealable": (409, "There is nothing to appeal against"),
    "appeal_open": (409, "An appeal is open already"),
    "stale_review": (409, "The review has moved on"),
    "exposure_limit": (429, "Enough pictures seen clear for a day"),
    "invalid_labels": (422, "Some labels are wrong"),
    "invalid_policy": (422, "The policy is not valid"),
    "policy_name_taken": (409, "The policy's name is taken"),
    "policy_read_only": (403, "The policy is the installation's"),
    "policy_in_use": (409, "The policy is assigned"),
    "invalid_hash_list": (422, "The list of hashes cannot be read"),
    "weak_hash": (409, "The picture has too little detail to find others by"),
    "too_many_items": (422, "Too many items"),
    "too_many_files": (413, "Too many files"),
    "file_too_large": (413, "A file is too large"),
    # ZIP
    "zip_corrupt": (422, "The ZIP is damaged"),
    "zip_encrypted": (422, "The ZIP is encrypted"),
    "zip_path": (422, "A ZIP member has a forbidden path"),
    "zip_symlink": (422, "A ZIP member is not a plain file"),
    "zip_nested": (422, "A ZIP member is an archive itself"),
    "zip_duplicate_name": (422, "Two ZIP members have the same name"),
    "zip_too_many_members": (422, "The ZIP has too many members"),
    "zip_too_large": (413, "The ZIP unpacks to too many bytes"),
    "zip_bomb": (422, "The ZIP is built to unpack to far more than it holds"),
    "zip_method": (422, "A ZIP member is packed by an unsupported method"),
    "zip_lying_size": (422, "A ZIP member's size is not the declared one"),
    # the console
    "signed_out": (401, "Nobody is signed in"),
    "sign_in_refused": (401, "The name or the password is wrong"),
    "bad_link": (410, "The sign-in link is used or too old"),
    "too_many_attempts": (429, "Too many attempts to sign in"),
    "missing_role": (403, "The person's role is not enough"),
    "foreign_origin": (403, "The request comes from another site"),
    "csrf_token": (403, "The form's token is missing or wrong"),
    "insecure_transport": (403, "The console needs HTTPS"),
    "invalid_form": (422, "Some fields of the form are wrong"),
    "weak_password": (422, "The password is too weak"),
    "bad_person": (422, "A person cannot be called so"),
    # webhooks
    "too_many_webhooks": (422, "The account has as many webhooks as it may have"),
    "webhooks_off": (503, "Webhooks are not set up"),
    # ours
    "too_many_streams": (503, "Too many event streams and exports"),
    "too_many_streams_of_account": (429, "Too many event streams and exports of this account"),
    "unavailable": (503, "The service cannot answer now"),
    "internal_error": (500, "An error of ours"),
}

# What the faults inside a problem (`errors[].code`) can be, besides the URL codes of `db.codes`.
FAULTS: Final[dict[str, str]] = {
    "missing": "A required field is absent.",
    "unknown_field": "There is no such field.",
    "duplicate_field": "The field is given twice.",
    "wrong_type": "The value has another JSON type.",
    "too_long": "The value is longer than allowed.",
    "too_short": "The value is shorter than allowed.",
    "bad_characters": "The value has characters that are not allowed (control characters, lone surrogates).",
    "invalid_value": "The value is not one of the allowed ones.",
    "invalid_json": "The line or item is not JSON.",
    "too_deep": "The JSON is nested too deeply.",
    "wrong_column_count": "The CSV row has another number of cells than the header.",
    "line_too_long": "The line or item is longer than allowed.",
    "invalid_csv": "The line is not CSV.",
    "file_too_large": "The file is larger than allowed.",
    "unknown_group": "The model of the item's tags has no such label group; `new` takes it all the same.",
    "unknown_label": "The model of the item's tags has no such label; `new` takes it all the same.",
    "invalid_pdq": "A PDQ hash is 64 hexadecimal digits.",
    "unsupported_signal": "The line or item holds no PDQ hash but a signal of another type.",
    "label_count": "Of an exclusive group exactly one label holds.",
    "not_found": "There is no such item.",
    "conflict": "The item has no picture.",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: `field` inside an object, `line` and `column` (from 1) of a text, `item` (from 0) of a
    list or an archive, `file` by its name."""

    code: str
    detail: str
    field: str | None = None
    line: int | None = None
    item: int | None = None
    file: str | None = None
    column: int | None = None

    def at(self, unit: Literal["line", "item"], place: int) -> "Fault":
        """The same fault, in this line or item."""
        return replace(self, line=place) if unit == "line" else replace(self, item=place)

    def row(self) -> dict[str, Any]:
        """The fault as it stands in a problem document, or is kept with an answer: absent members are left out, and
        what a client named is a text that can be written and kept, of a bounded length."""
        given = {key: value for key, value in vars(self).items() if value is not None}
        names = {key: _text(given[key][:MAX_NAME]) for key in ("field", "file") if key in given}
        return given | names | {"detail": _text(self.detail)}


_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")  # Postgres has no NUL in a text, and half a surrogate is none


def _text(said: str) -> str:
    return _NO_TEXT.sub("\ufffd", said)


@dataclass
class Problem(Exception):
    """Ends a request with a problem document. `code` is a key of ERRORS."""

    code: str
    detail: str
    faults: Iterable[Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        # Raised inside a COPY, this text goes to Postgres and into its log: not the client's data.
        return self.code

    def response(self) -> Response:
        status, title = ERRORS[self.code]
        document = {
            "type": f"/docs#error-{self.code}",
            "title": title,
            "status": status,
            "code": self.code,
            "detail": _text(self.detail),
            "errors": [fault.row() for fault in self.faults][:MAX_FAULTS],
            "request_id": g.get("request_id"),
        }
        return Response(json_bytes(document), status, dict(self.headers), content_type=PROBLEM_TYPE)


_PYDANTIC_CODES: Final = {
    "missing": "missing",
    "extra_forbidden": "unknown_field",
    "unexpected_keyword_argument": "unknown_field",
    "string_too_long": "too_long",
    "too_long": "too_long",
    "string_too_short": "too_short",
    "too_short": "too_short",
    "string_pattern_mismatch": "bad_characters",
    "string_unicode": "bad_characters",
    "literal_error": "invalid_value",
    "enum": "invalid_value",
    "value_error": "invalid_value",
    "model_type": "wrong_type",
    "dict_type": "wrong_type",
}


def faults_of(error: ValidationError) -> list[Fault]:
    """pydantic's findings in our words; the refused value itself is never repeated."""
    faults = []
    for found in error.errors(include_url=False, include_input=False, include_context=False):
        kind = found["type"]
        code = _PYDANTIC_CODES.get(kind) or ("wrong_type" if kind.endswith("_type") else "invalid_value")
        path = ".".join(str(step) for step in found["loc"]) or None
        faults.append(Fault(code, found["msg"], field=path))
    return faults


def install(app: Flask) -> None:
    """Every way out of the app that is not an answer becomes a problem document."""
    app.register_error_handler(Problem, Problem.response)
    app.register_error_handler(DbError, of_db)
    app.register_error_handler(HTTPException, of_werkzeug)
    app.register_error_handler(Unavailable, of_outage)
    app.register_error_handler(OSError, of_disk)
    app.register_error_handler(Exception, of_bug)


def seconds(wait_s: float) -> str:
    """For `Retry-After`: whole seconds, one at least."""
    return str(max(1, math.ceil(wait_s)))


def of_db(error: DbError) -> Response:
    """What the data layer refuses, as a problem document."""
    if error.code in ERRORS:
        headers = {"Retry-After": seconds(error.wait_s)} if isinstance(error, TryLater) else {}
        return Problem(error.code, error.detail or ERRORS[error.code][1], headers=headers).response()
    log.error(
        "unexpected refusal of the data layer in request %s: %s %s", g.get("request_id"), error.code, error.detail
    )
    if error.code == "no_open_bucket":
        return Problem("unavailable", "No storage is open for new items.", headers={"Retry-After": "30"}).response()
    return Problem("internal_error", "The request id helps us to find it.").response()


_OF_STATUS: Final = {404: "not_found", 405: "method_not_allowed", 406: "not_acceptable", 408: "body_timeout",
                     413: "body_too_large", 415: "unsupported_media_type"}  # fmt: skip


# In place of werkzeug's words, which are for people in front of a browser.
_DETAILS: Final = {
    404: "There is nothing at this path; /openapi.json lists what there is.",
    405: "This path does not take this method; `Allow` names those that it takes.",
}


def of_werkzeug(error: HTTPException) -> Response:
    """What Flask refuses, as a problem document."""
    status = error.code or 500
    code = _OF_STATUS.get(status) or ("bad_request" if status < 500 else "internal_error")
    headers = {key: value for key, value in error.get_headers() if key.lower() == "allow"}
    detail = _DETAILS.get(status) or error.description or HTTPStatus(status).phrase
    return Problem(code, detail, headers=headers).response()


def of_outage(error: Unavailable) -> Response:
    """The database is away, or the blob store."""
    what = "blob store" if isinstance(error, BlobsAway) else "database"
    # The detail stays here: it names our hosts.
    log.error("%s unavailable: %s", what, error.detail)
    return Problem("unavailable", f"The {what} cannot be reached.", headers={"Retry-After": "5"}).response()


def of_disk(error: OSError) -> Response:
    """A full disk is an outage, anything else a fault of ours."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return of_bug(error)
    log.error("no space left for uploads")
    return Problem("unavailable", "There is no space left for uploads.", headers={"Retry-After": "60"}).response()


def of_bug(error: Exception) -> Response:
    """A fault of ours; the log has its traceback."""
    log.exception("unhandled error in request %s", g.get("request_id"), exc_info=error)
    return Problem("internal_error", "The request id helps us to find it.").response()
