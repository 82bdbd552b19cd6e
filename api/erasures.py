"""Erasures: asked for here, worked off by maintenance, and kept as receipts."""

from typing import Final
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.erasure_schemas import ErasureIn, ErasureOut, ErasuresPage
from api.errors import Fault, Problem
from api.routing import Answer, Call, Parameters, Routes
from api.small_body import checked, small_json
from db import erasures
from db.erasure_tables import Erasure
from db.errors import BadSelection

routes = Routes("erasures", "Forgetting pictures for good, with a receipt.")


@routes.route(
    "POST",
    "/v1/erasures",
    scope="erasures:write",
    summary="Erase",
    body={"application/json": ErasureIn},
    answers={202: Answer("Accepted: maintenance erases.", ErasureOut, headers={"Location": "The erasure."})},
    errors=(
        "body_incomplete", "body_timeout", "body_too_large", "invalid_body", "invalid_json", "not_found",
        "unsupported_encoding", "unsupported_media_type",
    ),
)  # fmt: skip
def create(call: Call) -> Response:
    """Forgets items with all that came of them: URL, names, upload, working copy, tags, scores, verdicts, labels,
    reviews, decisions, appeals, events. A place with the code `erased` stays of each, so that counts still add up. A
    picture goes when no item of the account shows it any more, by `picture` with every item that does. Only what was
    submitted before counts, also what is being worked on just now. It cannot be undone."""
    body, _ = small_json(call)
    asked = checked(ErasureIn, {} if body is None else body)
    with call.transaction() as session:
        try:
            made = erasures.ask(
                session, call.account_id, asked.kind, asked.target, actor=call.actor, reference=asked.reference
            )
        except BadSelection as error:
            fault = Fault("invalid_value", str(error), field="target")
            raise Problem("invalid_body", "See `errors`.", [fault]) from None
        answer = _out(call, made)
    return json_answer(answer, 202, {"Location": answer.url})


class ErasuresQuery(Parameters):
    """Which page."""

    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Erasures of a page.")


@routes.route(
    "GET",
    "/v1/erasures",
    scope="erasures:read",
    summary="List erasures",
    query=ErasuresQuery,
    answers={200: Answer("A page, newest first.", ErasuresPage)},
    errors=("invalid_cursor", "invalid_parameter"),
)
def index(call: Call, query: ErasuresQuery) -> Response:
    """The account's erasures."""
    after = paging.erasure_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = erasures.page(session, call.account_id, after=after, limit=query.limit + 1)
    shown = found[: query.limit]
    more = paging.after_erasure(shown[-1].id) if len(found) > len(shown) else None
    return json_answer(ErasuresPage(erasures=[_out(call, each) for each in shown], next=more))


@routes.route(
    "GET",
    "/v1/erasures/<uuid:erasure_id>",
    scope="erasures:read",
    summary="Read an erasure's receipt",
    answers={200: Answer("The erasure, with what was removed so far.", ErasureOut)},
    errors=("not_found",),
)
def read(call: Call, erasure_id: UUID) -> Response:
    """How far it is, and once it is finished the receipt: what was removed, when, by whom, on what request: ids,
    hashes and counts only."""
    with call.transaction() as session:
        return json_answer(_out(call, erasures.get(session, call.account_id, erasure_id)))


def _out(call: Call, erasure: Erasure) -> ErasureOut:
    journal = erasure.journal_sha256
    return ErasureOut.model_validate(
        {
            **{name: getattr(erasure, name) for name in _SAME},
            "url": f"{call.settings.public_url}/v1/erasures/{erasure.id}",
            "target": erasures.shown_target(erasure),
            "target_sha256": erasure.target_sha256.hex(),
            "journal_sha256": None if journal is None else journal.hex(),
        }
    )


_SAME: Final = (
    "id", "kind", "reference", "actor", "state", "counts", "created_at", "started_at", "rows_at", "finished_at",
    "settled_at",
)  # fmt: skip
