"""Heartbeats: which processes live, what they did last. A stale one lets the reaper take its leases early."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session


def beat(session: Session, worker_id: UUID, role: str, host: str, pid: int, stats: dict[str, Any]) -> None:
    """Say that this process lives, with its counters."""
    session.execute(
        text(
            "INSERT INTO workers (id, role, host, pid, stats)"
            " VALUES (:id, :role, :host, :pid, CAST(:stats AS jsonb))"
            " ON CONFLICT (id) DO UPDATE SET last_seen_at = now(), gone_at = NULL, stats = excluded.stats"
        ),
        {"id": worker_id, "role": role, "host": host, "pid": pid, "stats": json.dumps(stats)},
    )


def gone(session: Session, worker_id: UUID) -> None:
    """A graceful end: leases that this process still has are free at once."""
    session.execute(text("UPDATE workers SET gone_at = now() WHERE id = :id"), {"id": worker_id})


def alive(session: Session, within_s: float = 30.0) -> list[dict[str, Any]]:
    """The processes that beat lately: id, role, host, pid, started_at, last_seen_at, up_s (since its start), stats."""
    rows = session.execute(
        text(
            "SELECT id, role, host, pid, started_at, last_seen_at, stats,"
            " extract(epoch FROM now() - started_at)::float AS up_s FROM workers"
            " WHERE gone_at IS NULL AND last_seen_at > now() - make_interval(secs => :within) ORDER BY role, started_at"
        ),
        {"within": within_s},
    )
    return [dict(row) for row in rows.mappings()]


def heard(session: Session) -> dict[str, float]:
    """Role → seconds since a process of it beat last, alive or not; one that said goodbye does not count."""
    rows = session.execute(
        text(
            "SELECT role, extract(epoch FROM now() - max(last_seen_at))::float AS silent_s FROM workers"
            " WHERE gone_at IS NULL GROUP BY role"
        )
    )
    return {row.role: row.silent_s for row in rows}


def forget(session: Session) -> None:
    """Drop processes that have not been seen for a day."""
    session.execute(text("DELETE FROM workers WHERE last_seen_at < now() - interval '1 day'"))
