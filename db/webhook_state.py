"""How webhooks are, of all accounts: for who looks after the installation. Changes nothing, and reads no salt."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: its account's name, why it is disabled (None: it is not) and seconds since that, or since when it
    has only failed."""

    account: str
    id: UUID
    reason: str | None
    since_s: float


@dataclass(frozen=True)
class State:
    """`keys`: key id → enabled endpoints whose newest secret is made with it. `disabled`: by us, not by their owners.
    `failing`: enabled ones whose last tries all failed. `pending` deliveries wait, of them `unsigned` because their
    secret's key was missing; `due_s`: how long one has waited beyond its time at most, at an endpoint that takes more.
    """

    enabled: int
    keys: dict[str, int]
    disabled: list[Endpoint]
    failing: list[Endpoint]
    pending: int
    unsigned: int
    due_s: float


def state(session: Session) -> State:
    """How they are now; the longest first. For the role of workers, or the owner: the API's sees one account."""
    keys = {row.key_id: int(row.endpoints) for row in session.execute(_KEYS)}
    told = [Endpoint(row.name, row.id, row.reason, float(row.since_s)) for row in session.execute(_TROUBLED)]
    row: Any = session.execute(_DELIVERIES).one()
    return State(
        enabled=int(row.enabled),
        keys=keys,
        disabled=[each for each in told if each.reason is not None],
        failing=[each for each in told if each.reason is None],
        pending=int(row.pending),
        unsigned=int(row.unsigned),
        due_s=float(row.due_s),
    )


_KEYS = text(
    """
    SELECT s.key_id, count(*) AS endpoints FROM webhook_secrets s JOIN webhooks h ON h.id = s.webhook_id
    WHERE s.expires_at IS NULL AND h.state = 'enabled' GROUP BY s.key_id
    """
)
_TROUBLED = text(
    """
    SELECT a.name, h.id, h.reason, extract(epoch FROM now() - coalesce(h.disabled_at, h.failing_since)) AS since_s
    FROM webhooks h JOIN accounts a ON a.id = h.account_id
    WHERE h.reason IN ('failing', 'gone') OR (h.state = 'enabled' AND h.failing_since IS NOT NULL)
    ORDER BY since_s DESC, h.id
    """
)
_DELIVERIES = text(
    """
    SELECT (SELECT count(*) FROM webhooks WHERE state = 'enabled') AS enabled, count(*) AS pending,
      count(*) FILTER (WHERE d.code = 'no_signing_key') AS unsigned,
      coalesce(max(extract(epoch FROM now() - d.not_before)) FILTER (
        WHERE d.not_before <= now() AND (d.owner IS NULL OR d.lease_until < now()) AND h.state = 'enabled'
          AND (h.paused_until IS NULL OR h.paused_until <= now())), 0) AS due_s
    FROM deliveries d JOIN webhooks h ON h.id = d.webhook_id WHERE d.state = 'pending'
    """
)
