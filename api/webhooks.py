"""Webhooks: register endpoints, change, rotate, try out, delete. Nothing is sent or resolved here: maintenance does."""

from typing import Any
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.errors import Fault, Problem
from api.routing import Answer, Call, Parameters, Routes
from api.small_body import checked, small_json
from api.webhook_schemas import (
    DeliveryOut,
    WebhookChangeIn,
    WebhookIn,
    WebhookOut,
    WebhookSecretOut,
    WebhooksPage,
)
from db import webhooks
from db.session import Session
from db.webhook_secrets import Keys
from db.webhook_tables import Delivery, Webhook
from db.webhook_targets import TEXTS, Targets

routes = Routes("webhooks", "Events sent to your servers, signed (Standard Webhooks 1.0).")
BODY_ERRORS = (
    "body_incomplete", "body_timeout", "body_too_large", "invalid_body", "invalid_json", "unsupported_encoding",
    "unsupported_media_type",
)  # fmt: skip
_COPIED = (
    "id", "url", "types", "description", "state", "reason", "failures", "failing_since", "paused_until", "delivered_at",
    "disabled_at", "created_at",
)  # fmt: skip


def delivery_out(delivery: Delivery) -> dict[str, Any]:
    """The members of a DeliveryOut."""
    copied = ("type", "state", "attempts", "code", "status", "created_at", "ended_at")
    next_at = delivery.not_before if delivery.state == "pending" else None
    return {"id": delivery.event_id, "next_at": next_at, **{name: getattr(delivery, name) for name in copied}}


def _rows(call: Call, session: Session, found: list[Webhook]) -> list[dict[str, Any]]:
    until = webhooks.rotating(session, call.account_id, [each.id for each in found])
    return [{**{name: getattr(each, name) for name in _COPIED}, "rotating_until": until.get(each.id)} for each in found]


def _one(call: Call, session: Session, webhook: Webhook) -> WebhookOut:
    return WebhookOut.model_validate(_rows(call, session, [webhook])[0])


def _with_secret(call: Call, session: Session, webhook: Webhook, secret: str) -> WebhookSecretOut:
    return WebhookSecretOut.model_validate({**_rows(call, session, [webhook])[0], "secret": secret})


def keys(call: Call) -> Keys:
    """What new secrets are derived from; Problem `webhooks_off`."""
    if not call.settings.webhook_keys:
        raise Problem("webhooks_off", "This installation has no key to sign with: its operator can set one.")
    return Keys(call.settings.webhook_keys)


def check_url(call: Call, url: str) -> None:
    """Problem `invalid_body` for a URL that webhooks may not go to, by its text."""
    code = Targets.of(call.settings).problem(url)
    if code is not None:
        raise Problem("invalid_body", "See `errors`.", [Fault(code, TEXTS[code], field="url")])


@routes.route(
    "POST",
    "/v1/webhooks",
    scope="webhooks:write",
    summary="Register a webhook",
    body={"application/json": WebhookIn},
    answers={201: Answer("The webhook, and its secret.", WebhookSecretOut, headers={"Location": "The webhook."})},
    errors=(*BODY_ERRORS, "too_many_webhooks", "webhooks_off"),
)
def create(call: Call) -> Response:
    """The secret is in this answer and in no other. The URL is checked by its text now, and the address behind its name
    each time that something is sent there."""
    body, _ = small_json(call)
    asked = checked(WebhookIn, {} if body is None else body)
    signing = keys(call)
    check_url(call, asked.url)
    with call.transaction() as session:
        made, secret = webhooks.create(
            session, call.account_id, asked.url, asked.types, asked.description, keys=signing, actor=call.actor
        )
        answer = _with_secret(call, session, made, secret)
    return json_answer(answer, 201, {"Location": f"{call.settings.public_url}/v1/webhooks/{made.id}"})


class WebhooksQuery(Parameters):
    """Which endpoints."""

    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Webhooks of a page.")


@routes.route(
    "GET",
    "/v1/webhooks",
    scope="webhooks:read",
    summary="List webhooks",
    query=WebhooksQuery,
    answers={200: Answer("A page, newest first.", WebhooksPage)},
    errors=("invalid_cursor", "invalid_parameter"),
)
def index(call: Call, query: WebhooksQuery) -> Response:
    """With their state: an endpoint that answered 410, or only failed for days, is disabled."""
    before = paging.webhook_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = webhooks.page(session, call.account_id, before=before, limit=query.limit + 1)
        shown = found[: query.limit]
        rows = _rows(call, session, shown)
    more = paging.after_webhook(shown[-1].id) if len(found) > len(shown) else None
    return json_answer(WebhooksPage.model_validate({"webhooks": rows, "next": more}))


@routes.route(
    "GET",
    "/v1/webhooks/<uuid:webhook_id>",
    scope="webhooks:read",
    summary="Read a webhook",
    answers={200: Answer("The webhook.", WebhookOut)},
    errors=("not_found",),
)
def read(call: Call, webhook_id: UUID) -> Response:
    """Its state, how it has been doing, and until when two secrets sign. Never the secret."""
    with call.transaction() as session:
        return json_answer(_one(call, session, webhooks.get(session, call.account_id, webhook_id)))


@routes.route(
    "PATCH",
    "/v1/webhooks/<uuid:webhook_id>",
    scope="webhooks:write",
    summary="Change a webhook",
    body={"application/json": WebhookChangeIn},
    answers={200: Answer("The webhook, changed.", WebhookOut)},
    errors=(*BODY_ERRORS, "not_found"),
)
def change(call: Call, webhook_id: UUID) -> Response:
    """Disabling gives up what waits, and nothing is sent meanwhile. Once enabled, `redeliver` makes up for it."""
    body, _ = small_json(call)
    asked = checked(WebhookChangeIn, {} if body is None else body)
    changes = {name: getattr(asked, name) for name in asked.model_fields_set}
    if "url" in changes:
        check_url(call, asked.url)
    with call.transaction() as session:
        changed = webhooks.update(session, call.account_id, webhook_id, actor=call.actor, **changes)
        return json_answer(_one(call, session, changed))


@routes.route(
    "DELETE",
    "/v1/webhooks/<uuid:webhook_id>",
    scope="webhooks:write",
    summary="Delete a webhook",
    answers={204: Answer("It is gone, with its deliveries and their log.")},
    errors=("not_found",),
)
def delete(call: Call, webhook_id: UUID) -> Response:
    """What is being sent at this moment may still arrive."""
    with call.transaction() as session:
        webhooks.delete(session, call.account_id, webhook_id, actor=call.actor)
    return Response(status=204)


@routes.route(
    "POST",
    "/v1/webhooks/<uuid:webhook_id>/rotate",
    scope="webhooks:write",
    summary="Rotate a webhook's secret",
    answers={200: Answer("The webhook, and its new secret.", WebhookSecretOut)},
    errors=("not_found", "webhooks_off"),
)
def rotate(call: Call, webhook_id: UUID) -> Response:
    """For 24 hours every event carries two signatures, of the new secret and of the one before; older ones end now."""
    signing = keys(call)
    with call.transaction() as session:
        webhook, secret = webhooks.rotate(session, call.account_id, webhook_id, keys=signing, actor=call.actor)
        return json_answer(_with_secret(call, session, webhook, secret))


@routes.route(
    "POST",
    "/v1/webhooks/<uuid:webhook_id>/ping",
    scope="webhooks:write",
    summary="Try a webhook out",
    answers={202: Answer("The delivery: read it again to see how it ended.", DeliveryOut)},
    errors=("conflict", "not_found"),
)
def ping(call: Call, webhook_id: UUID) -> Response:
    """Sends `webhook.ping` to this endpoint alone, once, whatever it asked for."""
    with call.transaction() as session:
        made = webhooks.ping(session, call.account_id, webhook_id)
        return json_answer(DeliveryOut.model_validate(delivery_out(made)), 202)
