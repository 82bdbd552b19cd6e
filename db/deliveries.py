"""Deliveries as the owner of an endpoint sees them: listed with their log, and sent again on request.

any → pending         `redeliver`, `redeliver_since`; the other moves: `db.delivery_queue`
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, webhooks
from db.errors import Conflict, NotFound
from db.webhook_tables import Delivery, DeliveryAttempt


def get(session: Session, account_id: int, webhook_id: UUID, event_id: UUID) -> Delivery:
    """One delivery of the account; NotFound."""
    found = session.scalar(
        select(Delivery)
        .where(Delivery.account_id == account_id, Delivery.webhook_id == webhook_id, Delivery.event_id == event_id)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound("There is no such delivery.")
    return found


def payload(session: Session, account_id: int, event_id: UUID) -> dict[str, Any]:
    """What the event says; NotFound."""
    row = session.execute(_EVENT, {"account_id": account_id, "event_id": event_id}).first()
    if row is None:
        raise NotFound("There is no such event.")
    return dict(row.payload)


def attempts(session: Session, account_id: int, webhook_id: UUID, event_id: UUID) -> list[DeliveryAttempt]:
    """The log of a delivery, oldest first."""
    query = select(DeliveryAttempt).where(
        DeliveryAttempt.account_id == account_id,
        DeliveryAttempt.webhook_id == webhook_id,
        DeliveryAttempt.event_id == event_id,
    )
    return list(session.scalars(query.order_by(DeliveryAttempt.n)))


def page(
    session: Session,
    account_id: int,
    webhook_id: UUID,
    *,
    state: str | None = None,
    type_: str | None = None,
    before: UUID | None = None,
    limit: int = 100,
) -> list[Delivery]:
    """An endpoint's deliveries, newest event first, from behind `before`. NotFound."""
    webhooks.get(session, account_id, webhook_id)
    query = select(Delivery).where(Delivery.account_id == account_id, Delivery.webhook_id == webhook_id)
    if state is not None:
        query = query.where(Delivery.state == state)
    if type_ is not None:
        query = query.where(Delivery.type == type_)
    if before is not None:
        query = query.where(Delivery.event_id < before)
    return list(session.scalars(query.order_by(Delivery.event_id.desc()).limit(limit)))


def redeliver(session: Session, account_id: int, webhook_id: UUID, event_id: UUID, *, actor: str) -> Delivery:
    """any → pending, due now, with the whole schedule before it; the event's id stays. NotFound, Conflict.

    One that is being sent at this moment is left to its sender.
    """
    _enabled(session, account_id, webhook_id)
    get(session, account_id, webhook_id, event_id)
    session.execute(_AGAIN, {"account_id": account_id, "webhook_id": webhook_id, "event_id": event_id})
    audit.record(session, account_id, actor, "webhook.redeliver", str(webhook_id), event=str(event_id))
    return get(session, account_id, webhook_id, event_id)


def redeliver_since(session: Session, account_id: int, webhook_id: UUID, since: datetime, *, actor: str) -> int:
    """Everything that the endpoint should have got since then and did not: what failed → pending, and what happened
    while it was disabled or not there; how many. NotFound, Conflict."""
    _enabled(session, account_id, webhook_id)
    parameters = {"account_id": account_id, "webhook_id": webhook_id, "since": since}
    queued = len(session.execute(_AGAIN_SINCE, parameters).all())
    detail = {"since": since.isoformat(), "deliveries": queued}
    audit.record(session, account_id, actor, "webhook.redeliver", str(webhook_id), **detail)
    return queued


def _enabled(session: Session, account_id: int, webhook_id: UUID) -> None:
    if webhooks.get(session, account_id, webhook_id).state != "enabled":
        raise Conflict("The webhook is disabled: enable it first.")


_EVENT = text("SELECT payload FROM outbox WHERE account_id = :account_id AND id = :event_id")
_AGAIN = text(
    """
    UPDATE deliveries SET state = 'pending', step = 0, claims = 0, not_before = now(), ended_at = NULL
    WHERE account_id = :account_id AND webhook_id = :webhook_id AND event_id = :event_id AND owner IS NULL
    """
)
_AGAIN_SINCE = text(
    """
    INSERT INTO deliveries AS d (webhook_id, event_id, account_id, type)
    SELECT h.id, o.id, o.account_id, o.type FROM outbox o JOIN webhooks h ON h.account_id = o.account_id
    WHERE o.account_id = :account_id AND h.id = :webhook_id AND o.created_at >= :since AND o.type <> 'webhook.ping'
      AND (h.types IS NULL OR o.type = ANY(h.types))
    ON CONFLICT (webhook_id, event_id) DO UPDATE
      SET state = 'pending', step = 0, claims = 0, not_before = now(), ended_at = NULL WHERE d.state = 'failed'
    RETURNING event_id
    """
)
