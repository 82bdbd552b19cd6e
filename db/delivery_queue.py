"""The queue of deliveries: events of the outbox become deliveries, which a sender leases, tries and ends.

    nothing → pending     `fan_out`, of events that no one has fanned out yet
    pending, leased       `claim`, within the bounds of endpoint and account; the lease of a sender that died runs out
    pending → delivered   `record`, by its owner
    pending → pending     `record`: it failed and is due again by the schedule
    pending → failed      `record`: the schedule is over; or `webhooks.disable`

An event is fanned out by a mark of its own, never by a cursor over ids: ids are older than their commits, and a cursor
would pass over an event that was committed late. Nothing is sent here: `worker.deliver` does. Every time is the
database's `now()`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit, locks, webhooks
from db.errors import LeaseLost

PROBING: Final = 3
"""Failures in a row after which an endpoint gets one try at a time, until one succeeds."""


@dataclass(frozen=True)
class Claimed:
    """A leased delivery with all that sending needs. `now_s` is the database's Unix time at the claim."""

    webhook_id: UUID
    event_id: UUID
    account_id: int
    owner: UUID
    fence: int
    step: int
    claims: int
    url: str
    type: str
    payload: dict[str, Any]
    created_at: datetime
    now_s: float
    salts: tuple[tuple[bytes, str], ...]


@dataclass(frozen=True)
class Tried:
    """How one try ended: well, or with a `code`; when to try again (None: never), and how long the endpoint gets no
    other one. Seconds. `ours`: the failure says nothing of the endpoint."""

    code: str | None
    status: int | None
    seconds: float
    again_s: float | None = None
    pause_s: float = 0.0
    ours: bool = False


@dataclass(frozen=True)
class Bounds:
    """Most deliveries in work at a time, of all senders together."""

    endpoint: int = 4
    account: int = 16


def fan_out(session: Session, limit: int = 500) -> int:
    """nothing → pending: the next events, at every enabled endpoint of their account that asks for them; how many
    events. Those that nobody asks for are marked all the same."""
    return len(session.execute(_FAN_OUT, {"limit": limit}).all())


def claim(session: Session, owner: UUID, lease_s: float, limit: int, bounds: Bounds) -> list[Claimed]:
    """Lease deliveries that are due, at most `limit`: endpoints take turns, each within its bounds.

    One claim at a time, of all senders, so that the bounds hold for all of them; [] when another is at it.
    """
    if limit <= 0 or not locks.try_lock(session, "deliver"):
        return []
    parameters = {
        "owner": owner, "lease_s": lease_s, "limit": limit, "endpoint": bounds.endpoint, "account": bounds.account,
        "probing": PROBING,
    }  # fmt: skip
    rows = session.execute(_CLAIM, parameters).mappings().all()
    salts: dict[UUID, list[tuple[bytes, str]]] = {}
    for row in session.execute(_SALTS, {"ids": list({row["webhook_id"] for row in rows})}):
        salts.setdefault(row.webhook_id, []).append((bytes(row.salt), row.key_id))
    return [Claimed(**row, salts=tuple(salts.get(row["webhook_id"], ()))) for row in rows]


def record(session: Session, claimed: Claimed, tried: Tried, *, disable_days: float) -> str | None:
    """End a try: a line in the log, and pending → delivered, failed or pending again. Raises LeaseLost (roll back).

    Returns the reason if the endpoint is disabled by it: `gone` after a 410, `failing` when it has only failed for
    `disable_days`.
    """
    ours = {"webhook_id": claimed.webhook_id, "event_id": claimed.event_id}
    outcome = {"code": tried.code, "status": tried.status, "again_s": tried.again_s}
    if session.execute(_RECORD, {**ours, **outcome, "owner": claimed.owner, "fence": claimed.fence}).first() is None:
        raise LeaseLost(f"The delivery of {claimed.event_id} is no longer leased with fence {claimed.fence}.")
    session.execute(_LOG, {**ours, "account_id": claimed.account_id, **outcome, "seconds": tried.seconds})
    if tried.code is None:
        session.execute(_WELL, {"id": claimed.webhook_id})
        return None
    if tried.ours:
        return None
    parameters = {"id": claimed.webhook_id, "probing": PROBING, "pause_s": tried.pause_s, "days": disable_days}
    failing = session.scalar(_BADLY, parameters)
    reason = "gone" if tried.code == "http_410" else "failing" if failing else None
    if reason is None or not webhooks.disable(session, claimed.account_id, claimed.webhook_id, reason):
        return None
    about = {"reason": reason, "code": tried.code}
    audit.record(session, claimed.account_id, "system", "webhook.disable", str(claimed.webhook_id), **about)
    return reason


def release(session: Session, claimed: Claimed) -> bool:
    """Hand a delivery back that was not tried: at a graceful stop."""
    parameters = {"webhook_id": claimed.webhook_id, "event_id": claimed.event_id, "owner": claimed.owner}
    return session.execute(_RELEASE, {**parameters, "fence": claimed.fence}).first() is not None


def forget(session: Session, days: float, limit: int = 5000) -> int:
    """Drop events of more than `days` ago, with their deliveries and log, and secrets that sign no more; how many
    events. What is pending stays."""
    session.execute(_FORGET_SECRETS)
    return len(session.execute(_FORGET, {"days": days, "limit": limit}).all())


_FAN_OUT = text(
    """
    WITH waiting AS (
      SELECT id, account_id, type FROM outbox WHERE fanned_at IS NULL ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
    ), made AS (
      INSERT INTO deliveries (webhook_id, event_id, account_id, type)
      SELECT h.id, w.id, w.account_id, w.type FROM waiting w JOIN webhooks h ON h.account_id = w.account_id
      WHERE h.state = 'enabled' AND (h.types IS NULL OR w.type = ANY(h.types))
      ON CONFLICT DO NOTHING
    )
    UPDATE outbox o SET fanned_at = now() FROM waiting WHERE o.id = waiting.id RETURNING o.id
    """
)
_CLAIM = text(
    """
    WITH busy AS (
      SELECT webhook_id, account_id, count(*) AS n FROM deliveries
      WHERE owner IS NOT NULL AND lease_until >= now() GROUP BY webhook_id, account_id
    ), busy_accounts AS (
      SELECT account_id, sum(n) AS n FROM busy GROUP BY account_id
    ), due AS (
      SELECT h.account_id, d.webhook_id, d.event_id, d.rn,
        row_number() OVER (PARTITION BY h.account_id ORDER BY d.rn, d.not_before, d.webhook_id) AS place
      FROM webhooks h LEFT JOIN busy b ON b.webhook_id = h.id
      CROSS JOIN LATERAL (
        SELECT r.webhook_id, r.event_id, r.not_before, row_number() OVER (ORDER BY r.not_before, r.event_id) AS rn
        FROM (
          SELECT k.webhook_id, k.event_id, k.not_before FROM deliveries k
          WHERE k.webhook_id = h.id AND k.state = 'pending' AND k.not_before <= now()
            AND (k.owner IS NULL OR k.lease_until < now())
          ORDER BY k.not_before, k.event_id
          LIMIT greatest(0, CASE WHEN h.failures >= :probing THEN 1 ELSE :endpoint END - coalesce(b.n, 0))) r
      ) d
      WHERE h.state = 'enabled' AND (h.paused_until IS NULL OR h.paused_until <= now())
    ), picked AS (
      SELECT u.webhook_id, u.event_id FROM due u LEFT JOIN busy_accounts a ON a.account_id = u.account_id
      WHERE u.place <= :account - coalesce(a.n, 0)
      ORDER BY u.rn, u.place LIMIT :limit
    )
    UPDATE deliveries d SET owner = :owner, fence = d.fence + 1, claims = d.claims + 1,
      lease_until = now() + make_interval(secs => :lease_s)
    FROM picked p, webhooks h, outbox o
    WHERE d.webhook_id = p.webhook_id AND d.event_id = p.event_id AND h.id = d.webhook_id AND o.id = d.event_id
      AND d.state = 'pending' AND (d.owner IS NULL OR d.lease_until < now())
    RETURNING d.webhook_id, d.event_id, d.account_id, d.owner, d.fence, d.step, d.claims, h.url, d.type, o.payload,
      o.created_at, extract(epoch FROM now())::float8 AS now_s
    """
)
_SALTS = text(
    """
    SELECT webhook_id, salt, key_id FROM webhook_secrets
    WHERE webhook_id = ANY(:ids) AND (expires_at IS NULL OR expires_at > now()) ORDER BY created_at DESC
    """
)
_RECORD = text(
    """
    UPDATE deliveries SET owner = NULL, lease_until = NULL, claims = 0, attempts = attempts + 1, step = step + 1,
      code = :code, status = :status,
      state = CASE WHEN CAST(:code AS text) IS NULL THEN 'delivered'
                   WHEN CAST(:again_s AS float8) IS NULL THEN 'failed' ELSE 'pending' END,
      ended_at = CASE WHEN CAST(:code AS text) IS NULL OR CAST(:again_s AS float8) IS NULL THEN now() END,
      not_before = now() + make_interval(secs => coalesce(CAST(:again_s AS float8), 0))
    WHERE webhook_id = :webhook_id AND event_id = :event_id AND owner = :owner AND fence = :fence AND state = 'pending'
    RETURNING event_id
    """
)
_LOG = text(
    """
    INSERT INTO delivery_attempts (webhook_id, event_id, n, account_id, code, status, seconds)
    SELECT webhook_id, event_id, attempts, account_id, :code, :status, :seconds FROM deliveries
    WHERE webhook_id = :webhook_id AND event_id = :event_id
    """
)
# A row that many deliveries share: written only when there is something new to say.
_WELL = text(
    """
    UPDATE webhooks SET failures = 0, failing_since = NULL, paused_until = NULL, delivered_at = now()
    WHERE id = :id AND (failures > 0 OR paused_until IS NOT NULL OR delivered_at IS NULL
      OR delivered_at < now() - interval '10 seconds')
    """
)
# From the third failure in a row on it is left alone for 5 s, 10 s and so on, up to 5 minutes: its schedule is not the
# only one that waits for it.
_BADLY = text(
    """
    UPDATE webhooks SET failures = failures + 1, failing_since = coalesce(failing_since, now()),
      paused_until = greatest(paused_until, now() + make_interval(secs => greatest(:pause_s,
        CASE WHEN failures + 1 < :probing THEN 0 ELSE least(300, 5 * power(2, least(failures + 1 - :probing, 6))) END)))
    WHERE id = :id RETURNING failing_since < now() - make_interval(secs => 86400 * :days)
    """
)
_RELEASE = text(
    """
    UPDATE deliveries SET owner = NULL, lease_until = NULL, claims = greatest(claims - 1, 0)
    WHERE webhook_id = :webhook_id AND event_id = :event_id AND owner = :owner AND fence = :fence AND state = 'pending'
    RETURNING event_id
    """
)
_FORGET_SECRETS = text("DELETE FROM webhook_secrets WHERE expires_at < now() - interval '1 day'")
_FORGET = text(
    """
    DELETE FROM outbox WHERE id IN (
      SELECT o.id FROM outbox o
      WHERE o.created_at < now() - make_interval(secs => 86400 * :days) AND o.fanned_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_id = o.id AND d.state = 'pending')
      ORDER BY o.created_at LIMIT :limit)
    RETURNING id
    """
)
