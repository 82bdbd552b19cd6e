"""Appeals of the subject's owner, and statements of reasons. People decide on appeals in the review queue."""

from typing import Any
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.evidence_schemas import AppealIn, AppealOut, AppealsPage, AppealState, StatementOut
from api.routing import Answer, Call, Parameters, Routes
from api.small_body import checked, small_json
from db import appeals, items, moderations, statements
from db.appeals import Grounds
from db.evidence_tables import AppealRow
from db.ids import item_id as public_id
from db.items import ItemView
from db.moderation_tables import ModerationRow
from db.session import Session

routes = Routes("appeals", "Why a picture was rejected, and what can be done about it.")
_BODY = {"application/json": AppealIn}
_OPENED = {
    201: Answer("Open: somebody who has not decided on the picture will.", AppealOut, headers={"Location": "It."})
}
_ERRORS = (
    "not_found", "not_appealable", "appeal_open", "invalid_body", "invalid_json", "body_too_large",
    "unsupported_media_type",
)  # fmt: skip


@routes.route(
    "POST",
    "/v1/items/<item_id>/appeals",
    scope="moderation:write",
    summary="Appeal against an item's verdict",
    body=_BODY,
    answers=_OPENED,
    errors=_ERRORS,
)
def of_item(call: Call, item_id: str) -> Response:
    """Only against a rejection, or an approval that was removed, and once at a time. A verdict that was made on an
    appeal is final here."""
    grounds = _grounds(call)
    with call.transaction() as session:
        return _opened(call, session, items.get(session, call.account_id, item_id), None, grounds)


@routes.route(
    "POST",
    "/v1/moderations/<uuid:moderation_id>/appeals",
    scope="moderation:write",
    summary="Appeal against an upload's verdict",
    body=_BODY,
    answers=_OPENED,
    errors=_ERRORS,
)
def of_moderation(call: Call, moderation_id: UUID) -> Response:
    """As for an item. The event `appeal.decided` tells the answer, and `moderation.decided` a verdict that changed."""
    grounds = _grounds(call)
    with call.transaction() as session:
        row, item = moderations.get(session, call.account_id, moderation_id)
        return _opened(call, session, item, row.id, grounds)


class AppealsQuery(Parameters):
    """Which appeals."""

    state: AppealState | None = Field(default=None, description="Only those in this state.")
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Appeals of a page.")


@routes.route(
    "GET",
    "/v1/appeals",
    scope="moderation:read",
    summary="List appeals",
    query=AppealsQuery,
    answers={200: Answer("A page, newest first.", AppealsPage)},
    errors=("invalid_cursor",),
)
def index(call: Call, query: AppealsQuery) -> Response:
    """The account's appeals."""
    after = paging.appeal_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = appeals.page(session, call.account_id, state=query.state, after=after, limit=query.limit + 1)
        shown = found[: query.limit]
        more = paging.after_appeal(shown[-1].id) if len(found) > len(shown) else None
        return json_answer(AppealsPage(appeals=_out(call, session, shown), next=more))


@routes.route(
    "GET",
    "/v1/appeals/<uuid:appeal_id>",
    scope="moderation:read",
    summary="Read an appeal",
    answers={200: Answer("The appeal.", AppealOut)},
    errors=("not_found",),
)
def read(call: Call, appeal_id: UUID) -> Response:
    """Its state, and the answer once there is one."""
    with call.transaction() as session:
        (shown,) = _out(call, session, [appeals.get(session, call.account_id, appeal_id)])
    return json_answer(shown)


@routes.route(
    "POST",
    "/v1/appeals/<uuid:appeal_id>/withdraw",
    scope="moderation:write",
    summary="Withdraw an appeal",
    answers={200: Answer("The appeal, withdrawn.", AppealOut)},
    errors=("not_found", "conflict"),
)
def withdraw(call: Call, appeal_id: UUID) -> Response:
    """Nobody decides on it any more. Withdrawing twice changes nothing; an appeal that was decided is a conflict."""
    with call.transaction() as session:
        row = appeals.withdraw(session, call.account_id, appeal_id, actor=call.actor)
        (shown,) = _out(call, session, [row])
    return json_answer(shown)


@routes.route(
    "GET",
    "/v1/items/<item_id>/statement",
    scope="moderation:read",
    summary="Read an item's statement of reasons",
    answers={200: Answer("The statement, of the verdict that counts now.", StatementOut)},
    errors=("not_found", "conflict"),
)
def statement_of_item(call: Call, item_id: str) -> Response:
    """What was decided, by a person or by automation (never who), on which facts, under which term of the policy, and
    what can be done about it. What you do about the picture, where and for how long is yours to add."""
    with call.transaction() as session:
        return _statement(call, session, items.get(session, call.account_id, item_id), None)


@routes.route(
    "GET",
    "/v1/moderations/<uuid:moderation_id>/statement",
    scope="moderation:read",
    summary="Read an upload's statement of reasons",
    answers={200: Answer("The statement, of the verdict that counts now.", StatementOut)},
    errors=("not_found", "conflict"),
)
def statement_of_moderation(call: Call, moderation_id: UUID) -> Response:
    """As for an item, with the subject. Without a verdict it is a conflict."""
    with call.transaction() as session:
        row, item = moderations.get(session, call.account_id, moderation_id)
        return _statement(call, session, item, row)


def _grounds(call: Call) -> Grounds:
    body, _ = small_json(call)
    sent = checked(AppealIn, {} if body is None else body)
    return Grounds(sent.text, sent.contact)


def _opened(call: Call, session: Session, item: ItemView, moderation_id: UUID | None, grounds: Grounds) -> Response:
    row = appeals.start(session, call.account_id, item, grounds, actor=call.actor, moderation_id=moderation_id)
    (shown,) = _out(call, session, [row])
    return json_answer(shown, 201, {"Location": shown.url})


def _out(call: Call, session: Session, rows: list[AppealRow]) -> list[AppealOut]:
    said = appeals.answers(session, call.account_id, rows)
    return [AppealOut.model_validate(_row(call, row, said.get(row.id))) for row in rows]


_COPIED = (
    "id", "moderation_id", "context", "state", "verdict", "code", "policy", "text", "contact", "created_at",
    "decided_at",
)  # fmt: skip


def _row(call: Call, row: AppealRow, answer: dict[str, Any] | None) -> dict[str, Any]:
    base = call.settings.public_url
    item = public_id(row.job_id, row.seq)
    return {
        **{name: getattr(row, name) for name in _COPIED},
        "url": f"{base}/v1/appeals/{row.id}",
        "item_id": item,
        "answer": answer,
        "links": {"item": f"{base}/v1/items/{item}", "statement": f"{base}/v1/items/{item}/statement"},
    }


def _statement(call: Call, session: Session, item: ItemView, upload: ModerationRow | None) -> Response:
    made = statements.statement(session, call.account_id, item, upload)
    place = f"items/{item.item_id}" if upload is None else f"moderations/{upload.id}"
    possible = made["redress"]["appeal_possible"]
    made["redress"]["appeal_url"] = f"{call.settings.public_url}/v1/{place}/appeals" if possible else None
    return json_answer(StatementOut.model_validate(made))
