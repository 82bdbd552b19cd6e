"""Uploads for moderation: send one, wait for its verdict or ask later, list them."""

import hashlib
from typing import Any, Final
from uuid import UUID

from flask import Response, request
from pydantic import Field

from api import moderation_bodies, paging, preferences
from api.answers import json_answer
from api.moderation_bodies import Upload
from api.moderation_schemas import (
    CONTEXT,
    ModerationIn,
    ModerationRowOut,
    ModerationsPage,
    ModerationState,
    SubjectOut,
    UploadOut,
)
from api.routing import Answer, Call, Parameters, Routes
from api.schemas import MAX_ID, Verdict
from api.small_body import IDEMPOTENCY_HEADER, idempotency_key, replayed
from db import idempotency, limits, moderations, policy_assignments
from db.idempotency import Stored
from db.items import ItemView
from db.moderation_tables import ModerationRow
from db.moderations import Wanted

routes = Routes("moderation", "Uploads of users: one picture in, a verdict out, in the background.")

_BINARY: Final = {"type": "string", "contentMediaType": "application/octet-stream"}
_TEXT: Final = {"type": "string"}
_FORM: Final = {
    "type": "object",
    "properties": {
        "file": {**_BINARY, "description": "The picture: the one part with a file name, whatever its field."},
        **dict.fromkeys(moderation_bodies.FLAT, _TEXT),
    },
    "required": ["file"],
}
PREFER: Final = {"Prefer": "`wait=10`: hold the answer for up to so many seconds, until there is a verdict (RFC 7240)."}
_APPLIED: Final = {"Preference-Applied": "The wait that was granted; absent when the answer was not held."}
_LOCATION: Final = {"Location": "The moderation.", "Idempotent-Replayed": "`true` when an earlier upload is repeated."}


class UploadQuery(Parameters):
    """What is said of a picture that is sent as bare bytes; in a form or in JSON it stands in the body."""

    id: str | None = Field(default=None, description="Your name for the upload.")
    user: str | None = Field(default=None, description="The person it belongs to.")
    product: str | None = Field(default=None, description="The product it shows.")
    context: str | None = Field(default=None, description="Where it is to be shown.")
    policy: str | None = Field(default=None, description="The name of the policy that decides.")
    category: str | None = Field(default=None, description="What its owner declares it to show.")


@routes.route(
    "POST",
    "/v1/moderations",
    scope="moderation:write",
    summary="Send a picture for moderation",
    query=UploadQuery,
    headers=IDEMPOTENCY_HEADER | PREFER,
    body={
        "application/json": ModerationIn,
        "multipart/form-data": _FORM,
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
    },
    answers={
        200: Answer("A verdict, or a failure, within the time to wait.", UploadOut, headers=_LOCATION | _APPLIED),
        202: Answer("Accepted: ask again, or wait for the event.", UploadOut, headers=_LOCATION | _APPLIED),
    },
    errors=(
        "bad_request", "body_incomplete", "body_timeout", "body_too_large", "file_too_large", "idempotency_in_flight",
        "idempotency_key_reused", "invalid_body", "invalid_idempotency_key", "invalid_json", "invalid_multipart",
        "invalid_utf8", "no_picture", "quota_exceeded", "too_many_files", "unknown_policy", "unsupported_encoding",
        "unsupported_media_type",
    ),
)  # fmt: skip
def create(call: Call, query: UploadQuery) -> Response:
    """One picture: by URL (`application/json`), as a form with one file and fields, or as bare bytes with query
    parameters. It goes through the interactive lane, ahead of your own jobs.

    With `Prefer: wait=10` the answer is held until the verdict is there or the time is over: 200 or 202. Without it, or
    when too many already wait, it is 202 at once, and `GET` or the event `moderation.decided` tells the verdict. With
    an `Idempotency-Key`, the same request again is no second upload.
    """
    key = idempotency_key(request)
    with moderation_bodies.read(call, request, query.model_dump(exclude_none=True)) as upload:
        moderation_id, replays = _accepted(call, upload, key)
    headers = {"Location": _url(call, moderation_id)} | ({"Idempotent-Replayed": "true"} if replays else {})
    return _answer(call, moderation_id, headers, 202)


def _accepted(call: Call, upload: Upload, key: str | None) -> tuple[UUID, bool]:
    """Store the upload, or find the one that this key has stored; and whether it was that."""
    fingerprint = hashlib.sha256(b"moderation\0" + repr(sorted(request.args.items())).encode() + upload.fingerprint)
    per_day = call.settings.items_per_day
    with call.transaction() as session:
        stored = None if key is None else idempotency.begin(session, call.account_id, key)
        if stored is None:
            # Before its bytes are kept.
            limits.check(session, call.account_id, per_day)
            policy_assignments.pinned(session, call.account_id, upload.asked.context, upload.asked.policy)
    if stored is not None:
        return _repeated(stored, fingerprint.digest()), True
    upload.deliver()
    with call.transaction() as session:
        if key is not None and (stored := idempotency.begin(session, call.account_id, key)) is not None:
            return _repeated(stored, fingerprint.digest()), True
        made = moderations.submit(session, call.account_id, upload.asked, upload.item, per_day=per_day)
        if key is not None:
            answer, url = {"id": str(made.id)}, _url(call, made.id)
            idempotency.store(session, call.account_id, key, fingerprint.digest(), 202, answer, url)
        return made.id, False


def _repeated(stored: Stored, fingerprint: bytes) -> UUID:
    replayed(stored, fingerprint)  # Problem `idempotency_key_reused`
    return UUID(stored.response["id"])


@routes.route(
    "GET",
    "/v1/moderations/<uuid:moderation_id>",
    scope="moderation:read",
    summary="Read a moderation",
    headers=PREFER,
    answers={200: Answer("The upload and what is said of it now.", UploadOut, headers=_APPLIED)},
    errors=("not_found",),
)
def read(call: Call, moderation_id: UUID) -> Response:
    """State, verdict, scores and reasons. With `Prefer: wait=10`, a pending one is held as at the POST."""
    return _answer(call, moderation_id, {}, 200)


def _answer(call: Call, moderation_id: UUID, headers: dict[str, str], pending_status: int) -> Response:
    def is_open() -> bool:
        with call.transaction() as session:
            return moderations.is_open(session, call.account_id, moderation_id)

    headers = headers | preferences.held(call, request, is_open)
    with call.transaction() as session:
        row, item = moderations.get(session, call.account_id, moderation_id)
    status = pending_status if row.state == "pending" else 200
    return json_answer(_whole(call, row, item), status, headers)


class ModerationsQuery(Parameters):
    """Which uploads."""

    state: ModerationState | None = Field(default=None, description="Only those in this state.")
    verdict: Verdict | None = Field(default=None, description="Only those with this verdict.")
    user: str | None = Field(default=None, max_length=MAX_ID, description="Only those of this person.")
    product: str | None = Field(default=None, max_length=MAX_ID, description="Only those of this product.")
    context: str | None = Field(default=None, pattern=CONTEXT, description="Only those for this context; empty: none.")
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Uploads of a page.")


@routes.route(
    "GET",
    "/v1/moderations",
    scope="moderation:read",
    summary="List moderations",
    query=ModerationsQuery,
    answers={200: Answer("A page, newest first.", ModerationsPage)},
    errors=("invalid_cursor",),
)
def index(call: Call, query: ModerationsQuery) -> Response:
    """The account's uploads. A picture of a job is not among them: see the job's items."""
    after = paging.moderation_of(query.cursor) if query.cursor is not None else None
    wanted = Wanted(query.state, query.verdict, query.user, query.product, query.context)
    with call.transaction() as session:
        found = moderations.page(session, call.account_id, wanted, after=after, limit=query.limit + 1)
    shown = found[: query.limit]
    more = paging.after_moderation(shown[-1].id) if len(found) > len(shown) else None
    rows = [ModerationRowOut.model_validate(_row(call, row)) for row in shown]
    return json_answer(ModerationsPage(moderations=rows, next=more))


def _url(call: Call, moderation_id: UUID) -> str:
    return f"{call.settings.public_url}/v1/moderations/{moderation_id}"


def _row(call: Call, row: ModerationRow) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in _COPIED},
        "url": _url(call, row.id),
        "subject": SubjectOut(user=row.subject_user, product=row.subject_product),
    }


_COPIED = ("id", "client_id", "context", "state", "verdict", "automatic", "code", "created_at", "changed_at")


def _whole(call: Call, row: ModerationRow, item: ItemView) -> UploadOut:
    of_item = f"{call.settings.public_url}/v1/items/{item.item_id}"
    links = {"item": of_item, "job": f"{call.settings.public_url}/v1/jobs/{item.job_id}"}
    if item.work_key is not None:
        links["thumbnail"] = f"{of_item}/thumbnail"
    return UploadOut.model_validate(
        {
            **_row(call, row),
            "moderation": item.moderation,
            "detail": item.detail,
            "category": item.category,
            "tags": item.tags,
            "facts": item.facts,
            "item_id": item.item_id,
            "links": links,
        }
    )
