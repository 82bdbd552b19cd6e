"""Webhooks, for the account's administrators: endpoints, how they do, what was sent, and sending it again."""

from datetime import UTC, datetime
from uuid import UUID

from flask import Response, url_for
from pydantic import Field, field_validator

from api import paging
from api.console.pages import Form, Nav, PageCall, Pages
from api.console.rendering import redirect, render
from api.errors import Fault, Problem
from api.routing import Parameters
from api.webhook_schemas import ASKED_FOR, DeliveryState
from api.webhooks import check_url, keys
from db import deliveries, webhooks
from db.delivery_codes import DELIVERY_CODES
from db.outbox import EVENTS
from db.webhook_tables import Webhook
from db.webhook_targets import TEXTS

HERE = "/console/webhooks"
pages = Pages("webhooks", Nav("Webhooks", HERE, icon="webhook", role="admin", order=85, group="Account"))
ROWS = 50
ABOUT = {each: EVENTS[each] for each in ASKED_FOR}


class EndpointForm(Form):
    """Where, what and what for; no event chosen: all."""

    url: str = Field(max_length=2048)
    types: list[str] = Field(default=[], max_length=len(EVENTS))
    description: str | None = Field(default=None, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")

    @field_validator("types")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        if set(value) - set(ASKED_FOR):
            raise ValueError("there is no such event")
        return sorted(set(value))

    def check(self, call: PageCall) -> None:
        """Problem `invalid_form` for a URL that webhooks may not go to."""
        try:
            check_url(call, self.url)
        except Problem as refused:
            (fault,) = refused.faults
            raise Problem("invalid_form", TEXTS[fault.code], [Fault(fault.code, fault.detail, field="url")]) from None


@pages.page("GET", HERE, role="admin", title="Webhooks")
def index(call: PageCall) -> Response:
    """The endpoints, and a form for another one."""
    with call.transaction() as session:
        found = webhooks.page(session, call.account_id, before=None, limit=webhooks.MAX_WEBHOOKS)
    return render(call, "webhooks.html", webhooks=found, events=ABOUT, ready=bool(call.settings.webhook_keys))


@pages.page("POST", HERE, role="admin", title="Webhooks")
def create(call: PageCall) -> Response:
    """Make one, and show its secret: once, on this page."""
    asked = call.checked(EndpointForm)
    signing = keys(call)
    asked.check(call)
    with call.transaction() as session:
        made, secret = webhooks.create(
            session, call.account_id, asked.url, asked.types or None, asked.description, keys=signing, actor=call.actor
        )
    return _page(call, made.id, LogQuery(), secret)


class LogQuery(Parameters):
    """Which deliveries."""

    state: DeliveryState | None = None
    cursor: str | None = Field(default=None, max_length=100)


@pages.page("GET", f"{HERE}/<uuid:webhook_id>", role="admin", title="Webhook", query=LogQuery)
def show(call: PageCall, webhook_id: UUID, query: LogQuery) -> Response:
    """One endpoint and its log."""
    return _page(call, webhook_id, query)


def _page(call: PageCall, webhook_id: UUID, query: LogQuery, secret: str | None = None) -> Response:
    before = paging.delivery_of(query.cursor, webhook_id) if query.cursor is not None else None
    with call.transaction() as session:
        hook = webhooks.get(session, call.account_id, webhook_id)
        until = webhooks.rotating(session, call.account_id, [webhook_id]).get(webhook_id)
        found = deliveries.page(session, call.account_id, webhook_id, state=query.state, before=before, limit=ROWS + 1)
    shown = found[:ROWS]
    more = None
    if len(found) > len(shown):
        cursor = paging.after_delivery(webhook_id, shown[-1].event_id)
        more = url_for("console_webhooks_show", webhook_id=webhook_id, state=query.state, cursor=cursor)
    return render(
        call, "webhook.html", title="Webhook", webhook=hook, host=_host(hook), until=until, secret=secret,
        deliveries=shown, state_wanted=query.state, more=more, events=ABOUT, codes=DELIVERY_CODES,
    )  # fmt: skip


def _host(hook: Webhook) -> str:
    """What of a URL fits into a heading, and holds no token."""
    return hook.url.partition("://")[2].partition("/")[0].partition("?")[0]


@pages.page("POST", f"{HERE}/<uuid:webhook_id>", role="admin")
def change(call: PageCall, webhook_id: UUID) -> Response:
    """Another URL, other events, another description."""
    asked = call.checked(EndpointForm)
    asked.check(call)
    with call.transaction() as session:
        webhooks.update(
            session, call.account_id, webhook_id, actor=call.actor,
            url=asked.url, types=asked.types or None, description=asked.description,
        )  # fmt: skip
    return redirect(call, f"{HERE}/{webhook_id}", "The webhook is changed.")


@pages.page("POST", f"{HERE}/<uuid:webhook_id>/enable", role="admin")
def enable(call: PageCall, webhook_id: UUID) -> Response:
    """Enable it, with a clean record."""
    with call.transaction() as session:
        webhooks.update(session, call.account_id, webhook_id, actor=call.actor, enabled=True)
    return redirect(call, f"{HERE}/{webhook_id}", "The webhook is enabled. What it missed can be sent again below.")


@pages.page("POST", f"{HERE}/<uuid:webhook_id>/disable", role="admin")
def disable(call: PageCall, webhook_id: UUID) -> Response:
    """Send it nothing, and give up what waits."""
    with call.transaction() as session:
        webhooks.update(session, call.account_id, webhook_id, actor=call.actor, enabled=False)
    return redirect(call, f"{HERE}/{webhook_id}", "The webhook is disabled.")


@pages.page("POST", f"{HERE}/<uuid:webhook_id>/delete", role="admin")
def delete(call: PageCall, webhook_id: UUID) -> Response:
    """Gone with its log."""
    with call.transaction() as session:
        webhooks.delete(session, call.account_id, webhook_id, actor=call.actor)
    return redirect(call, HERE, "The webhook is deleted.")


@pages.page("POST", f"{HERE}/<uuid:webhook_id>/rotate", role="admin", title="Webhook")
def rotate(call: PageCall, webhook_id: UUID) -> Response:
    """A new secret, shown once, on this page."""
    signing = keys(call)
    with call.transaction() as session:
        _, secret = webhooks.rotate(session, call.account_id, webhook_id, keys=signing, actor=call.actor)
    return _page(call, webhook_id, LogQuery(), secret)


@pages.page("POST", f"{HERE}/<uuid:webhook_id>/ping", role="admin")
def ping(call: PageCall, webhook_id: UUID) -> Response:
    """Try it out."""
    with call.transaction() as session:
        made = webhooks.ping(session, call.account_id, webhook_id)
    there = f"{HERE}/{webhook_id}/deliveries/{made.event_id}"
    return redirect(call, there, "A ping is on its way. Load the page again to see how it ended.")


class SinceForm(Form):
    """From when on, as a browser's field gives it: without a zone, so it is UTC's."""

    since: datetime

    @field_validator("since")
    @classmethod
    def _utc(cls, value: datetime) -> datetime:
        return value if value.tzinfo else value.replace(tzinfo=UTC)


@pages.page("POST", f"{HERE}/<uuid:webhook_id>/redeliver", role="admin")
def redeliver_since(call: PageCall, webhook_id: UUID) -> Response:
    """What failed since then, and what happened while it was disabled."""
    asked = call.checked(SinceForm)
    with call.transaction() as session:
        queued = deliveries.redeliver_since(session, call.account_id, webhook_id, asked.since, actor=call.actor)
    told = f"{queued} {'delivery' if queued == 1 else 'deliveries'} will be sent again."
    return redirect(call, f"{HERE}/{webhook_id}", told)


@pages.page("GET", f"{HERE}/<uuid:webhook_id>/deliveries/<uuid:event_id>", role="admin", title="Delivery")
def delivery(call: PageCall, webhook_id: UUID, event_id: UUID) -> Response:
    """One event: its tries, and what it says."""
    with call.transaction() as session:
        hook = webhooks.get(session, call.account_id, webhook_id)
        found = deliveries.get(session, call.account_id, webhook_id, event_id)
        data = deliveries.payload(session, call.account_id, event_id)
        tries = deliveries.attempts(session, call.account_id, webhook_id, event_id)
    return render(
        call, "delivery.html", webhook=hook, host=_host(hook), delivery=found, data=data, tries=tries,
        codes=DELIVERY_CODES,
    )  # fmt: skip


@pages.page("POST", f"{HERE}/<uuid:webhook_id>/deliveries/<uuid:event_id>/redeliver", role="admin")
def redeliver(call: PageCall, webhook_id: UUID, event_id: UUID) -> Response:
    """Send it again, under the same id."""
    with call.transaction() as session:
        deliveries.redeliver(session, call.account_id, webhook_id, event_id, actor=call.actor)
    return redirect(call, f"{HERE}/{webhook_id}/deliveries/{event_id}", "It will be sent again.")
