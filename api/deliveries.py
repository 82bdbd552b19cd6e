"""The log of a webhook: its deliveries, their tries, and sending them again. Adds to the routes of webhooks."""

from typing import Any
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.routing import Answer, Call, Parameters
from api.small_body import checked, small_json
from api.webhook_schemas import (
    AttemptOut,
    DeliveriesPage,
    DeliveryOut,
    DeliveryState,
    DeliveryWholeOut,
    RedeliveredOut,
    RedeliverIn,
)
from api.webhooks import BODY_ERRORS, delivery_out, routes
from db import deliveries


class DeliveriesQuery(Parameters):
    """Which deliveries."""

    state: DeliveryState | None = Field(default=None, description="Only those in this state.")
    type: str | None = Field(default=None, max_length=100, description="Only of this event.")
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Deliveries of a page.")


@routes.route(
    "GET",
    "/v1/webhooks/<uuid:webhook_id>/deliveries",
    scope="webhooks:read",
    summary="List deliveries",
    query=DeliveriesQuery,
    answers={200: Answer("A page, newest event first.", DeliveriesPage)},
    errors=("invalid_cursor", "invalid_parameter", "not_found"),
)
def index(call: Call, webhook_id: UUID, query: DeliveriesQuery) -> Response:
    """What was sent, what waits, and what was given up, for as long as the installation keeps events."""
    before = paging.delivery_of(query.cursor, webhook_id) if query.cursor is not None else None
    with call.transaction() as session:
        found = deliveries.page(
            session, call.account_id, webhook_id,
            state=query.state, type_=query.type, before=before, limit=query.limit + 1,
        )  # fmt: skip
    shown = found[: query.limit]
    more = paging.after_delivery(webhook_id, shown[-1].event_id) if len(found) > len(shown) else None
    rows = [delivery_out(each) for each in shown]
    return json_answer(DeliveriesPage.model_validate({"deliveries": rows, "next": more}))


@routes.route(
    "GET",
    "/v1/webhooks/<uuid:webhook_id>/deliveries/<uuid:event_id>",
    scope="webhooks:read",
    summary="Read a delivery",
    answers={200: Answer("The delivery, its tries, and what the event says.", DeliveryWholeOut)},
    errors=("not_found",),
)
def read(call: Call, webhook_id: UUID, event_id: UUID) -> Response:
    """Each try with its time, status and code. Of what the receiver answered nothing else is kept."""
    with call.transaction() as session:
        found = deliveries.get(session, call.account_id, webhook_id, event_id)
        data = deliveries.payload(session, call.account_id, event_id)
        tries = deliveries.attempts(session, call.account_id, webhook_id, event_id)
    log: list[dict[str, Any]] = [{name: getattr(each, name) for name in AttemptOut.model_fields} for each in tries]
    return json_answer(DeliveryWholeOut.model_validate({**delivery_out(found), "data": data, "log": log}))


@routes.route(
    "POST",
    "/v1/webhooks/<uuid:webhook_id>/deliveries/<uuid:event_id>/redeliver",
    scope="webhooks:write",
    summary="Send a delivery again",
    answers={202: Answer("The delivery, due now.", DeliveryOut)},
    errors=("conflict", "not_found"),
)
def redeliver(call: Call, webhook_id: UUID, event_id: UUID) -> Response:
    """Under the same `webhook-id`, with the whole schedule before it. A disabled webhook is a conflict."""
    with call.transaction() as session:
        found = deliveries.redeliver(session, call.account_id, webhook_id, event_id, actor=call.actor)
        return json_answer(DeliveryOut.model_validate(delivery_out(found)), 202)


@routes.route(
    "POST",
    "/v1/webhooks/<uuid:webhook_id>/redeliver",
    scope="webhooks:write",
    summary="Send everything that was missed again",
    body={"application/json": RedeliverIn},
    answers={202: Answer("How many.", RedeliveredOut)},
    errors=(*BODY_ERRORS, "conflict", "not_found"),
)
def redeliver_since(call: Call, webhook_id: UUID) -> Response:
    """What failed since then, and what happened while the endpoint was disabled; not what was delivered."""
    body, _ = small_json(call)
    asked = checked(RedeliverIn, {} if body is None else body)
    with call.transaction() as session:
        queued = deliveries.redeliver_since(session, call.account_id, webhook_id, asked.since, actor=call.actor)
    return json_answer(RedeliveredOut(queued=queued), 202)
