"""Endpoints of webhooks and their secrets: who makes, changes, disables, tries out. Sending: `db.delivery_queue`.

    nothing → enabled     `create`
    enabled → disabled    `update`, by its owner; or `delivery_queue.record`: it answered 410, or only failed for days
    disabled → enabled    `update`, by its owner
    any → nothing         `delete`

What a disabled endpoint would have got is not kept for it: `deliveries.redeliver_since` makes it up.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, locks
from db.errors import Conflict, DbError, NotFound
from db.ids import uuid7
from db.webhook_secrets import Keys, shown
from db.webhook_tables import Delivery, Webhook

MAX_WEBHOOKS: Final = 50
ROTATION_HOURS: Final = 24
"""How long the secret before a rotation signs too."""


class TooManyWebhooks(DbError):
    """The account has as many endpoints as it may have."""

    code = "too_many_webhooks"


def create(
    session: Session,
    account_id: int,
    url: str,
    types: Sequence[str] | None,
    description: str | None,
    *,
    keys: Keys,
    actor: str,
) -> tuple[Webhook, str]:
    """nothing → enabled, and its secret, which cannot be shown again. Raises TooManyWebhooks; NoKey of `keys`."""
    locks.lock(session, "webhooks", account_id)
    if (session.scalar(_COUNT, {"account_id": account_id}) or 0) >= MAX_WEBHOOKS:
        raise TooManyWebhooks(f"An account has at most {MAX_WEBHOOKS} webhooks.")
    webhook_id = uuid7()
    session.execute(
        _CREATE,
        {
            "id": webhook_id,
            "account_id": account_id,
            "url": url,
            "types": None if types is None else list(types),
            "description": description,
        },
    )
    secret = _new_secret(session, account_id, webhook_id, keys)
    audit.record(session, account_id, actor, "webhook.create", str(webhook_id), types=types and list(types))
    return get(session, account_id, webhook_id), secret


def get(session: Session, account_id: int, webhook_id: UUID) -> Webhook:
    """One of the account's endpoints; NotFound."""
    found = session.scalar(
        select(Webhook)
        .where(Webhook.account_id == account_id, Webhook.id == webhook_id)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound("There is no such webhook.")
    return found


def page(session: Session, account_id: int, *, before: UUID | None, limit: int) -> list[Webhook]:
    """The account's endpoints, newest first, from behind `before`."""
    query = select(Webhook).where(Webhook.account_id == account_id)
    if before is not None:
        query = query.where(Webhook.id < before)
    return list(session.scalars(query.order_by(Webhook.id.desc()).limit(limit)))


def update(
    session: Session, account_id: int, webhook_id: UUID, *, actor: str, enabled: bool | None = None, **changes: Any
) -> Webhook:
    """Change `url`, `types` or `description`; enable or disable. NotFound.

    Enabled again, it starts with a clean record. Disabled, it gives up what waits: code `endpoint_disabled`.
    """
    webhook = get(session, account_id, webhook_id)
    if unknown := changes.keys() - {"url", "types", "description"}:
        raise TypeError(f"no such columns: {unknown}")
    for name, value in changes.items():
        setattr(webhook, name, value)
    session.flush()
    if enabled is not None and enabled != (webhook.state == "enabled"):
        if enabled:
            session.execute(_ENABLE, {"id": webhook_id, "account_id": account_id})
        else:
            disable(session, account_id, webhook_id, "owner")
    # Names of what was changed only: a URL may hold a token.
    changed = sorted(changes) + ([] if enabled is None else ["enabled" if enabled else "disabled"])
    audit.record(session, account_id, actor, "webhook.update", str(webhook_id), changed=changed)
    return get(session, account_id, webhook_id)


def disable(session: Session, account_id: int, webhook_id: UUID, reason: str) -> bool:
    """enabled → disabled, and what waits for it → failed; False when it was not enabled."""
    parameters = {"id": webhook_id, "account_id": account_id}
    if session.execute(_DISABLE, {**parameters, "reason": reason}).first() is None:
        return False
    session.execute(_GIVE_UP, parameters)
    return True


def delete(session: Session, account_id: int, webhook_id: UUID, *, actor: str) -> None:
    """Gone with its deliveries and their log; NotFound."""
    if session.execute(_DELETE, {"id": webhook_id, "account_id": account_id}).first() is None:
        raise NotFound("There is no such webhook.")
    audit.record(session, account_id, actor, "webhook.delete", str(webhook_id))


def rotate(session: Session, account_id: int, webhook_id: UUID, *, keys: Keys, actor: str) -> tuple[Webhook, str]:
    """A new secret; the one before signs too for a day, any older one no more. Raises NotFound; NoKey of `keys`."""
    webhook = get(session, account_id, webhook_id)
    locks.lock(session, "webhook secret", webhook_id)
    session.execute(_EXPIRE, {"id": webhook_id, "account_id": account_id, "hours": ROTATION_HOURS})
    secret = _new_secret(session, account_id, webhook_id, keys)
    audit.record(session, account_id, actor, "webhook.rotate", str(webhook_id))
    return webhook, secret


def ping(session: Session, account_id: int, webhook_id: UUID) -> Delivery:
    """An event for this endpoint alone, whatever it asked for; tried once. NotFound; Conflict if it is disabled."""
    if get(session, account_id, webhook_id).state != "enabled":
        raise Conflict("The webhook is disabled: enable it first.")
    locks.lock(session, "webhook ping", webhook_id)
    event_id = uuid7()
    parameters = {"event_id": event_id, "account_id": account_id, "webhook_id": webhook_id}
    session.execute(_PING, {**parameters, "subject": str(webhook_id)})
    session.execute(_PING_DELIVERY, parameters)
    return session.get_one(Delivery, (webhook_id, event_id))


def rotating(session: Session, account_id: int, webhook_ids: Sequence[UUID]) -> dict[UUID, Any]:
    """webhook → until when its secret before the last rotation signs too; those without one are not in it."""
    rows = session.execute(_ROTATING, {"account_id": account_id, "ids": list(webhook_ids)})
    return {row.webhook_id: row.until for row in rows}


def _new_secret(session: Session, account_id: int, webhook_id: UUID, keys: Keys) -> str:
    salt, key = keys.new()
    parameters = {"id": uuid7(), "webhook_id": webhook_id, "account_id": account_id, "salt": salt, "key_id": key}
    session.execute(_ADD_SECRET, parameters)
    return shown(keys.secret(salt, key))


_COUNT = text("SELECT count(*) FROM webhooks WHERE account_id = :account_id")
_CREATE = text(
    """
    INSERT INTO webhooks (id, account_id, url, types, description)
    VALUES (:id, :account_id, :url, CAST(:types AS text[]), :description)
    """
)
_ENABLE = text(
    """
    UPDATE webhooks SET state = 'enabled', reason = NULL, disabled_at = NULL, failures = 0, failing_since = NULL,
      paused_until = NULL WHERE id = :id AND account_id = :account_id
    """
)
_DISABLE = text(
    """
    UPDATE webhooks SET state = 'disabled', reason = :reason, disabled_at = now()
    WHERE id = :id AND account_id = :account_id AND state = 'enabled' RETURNING id
    """
)
# Also what is being sent at this moment: its sender finds its lease gone and writes nothing.
_GIVE_UP = text(
    """
    UPDATE deliveries SET state = 'failed', code = 'endpoint_disabled', ended_at = now(), owner = NULL,
      lease_until = NULL, claims = 0
    WHERE webhook_id = :id AND account_id = :account_id AND state = 'pending'
    """
)
_DELETE = text("DELETE FROM webhooks WHERE id = :id AND account_id = :account_id RETURNING id")
_EXPIRE = text(
    """
    UPDATE webhook_secrets
    SET expires_at = CASE WHEN expires_at IS NULL THEN now() + make_interval(hours => :hours) ELSE now() END
    WHERE webhook_id = :id AND account_id = :account_id AND (expires_at IS NULL OR expires_at > now())
    """
)
_ADD_SECRET = text(
    """
    INSERT INTO webhook_secrets (id, webhook_id, account_id, salt, key_id)
    VALUES (:id, :webhook_id, :account_id, :salt, :key_id)
    """
)
# It is fanned out already: to the one endpoint that it is for.
_PING = text(
    """
    INSERT INTO outbox (id, account_id, type, subject, round, payload, fanned_at)
    SELECT :event_id, :account_id, 'webhook.ping', :subject, coalesce(max(round) + 1, 0),
      jsonb_build_object('webhook', CAST(:subject AS text)), now()
    FROM outbox WHERE account_id = :account_id AND type = 'webhook.ping' AND subject = :subject
    """
)
_PING_DELIVERY = text(
    """
    INSERT INTO deliveries (webhook_id, event_id, account_id, type)
    VALUES (:webhook_id, :event_id, :account_id, 'webhook.ping')
    """
)
_ROTATING = text(
    """
    SELECT webhook_id, max(expires_at) AS until FROM webhook_secrets
    WHERE account_id = :account_id AND webhook_id = ANY(:ids) AND expires_at > now() GROUP BY webhook_id
    """
)
