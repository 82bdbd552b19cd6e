"""Entries of hash banks that end by themselves: those that expire, and those that suddenly hit too much.

    on ──(its time is over)──► expired
    on ──(too many pictures in an hour, beyond what it used to hit)──► quarantined ──(a person releases it)──► on

Counted are distinct pictures that came in; those found when an entry was added are not, and a day with many of them
says nothing of the entry.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit, bank_changes
from db.bank_tables import Bank, Entry


@dataclass(frozen=True)
class Surge:
    """An entry that went into quarantine: pictures of its last hour, and what it hit in an hour on average before."""

    entry_id: UUID
    bank: str
    pictures: int
    usual: float


@dataclass(frozen=True)
class State:
    """All banks together: entries that are not removed, those in quarantine and the names of their banks, and how long
    the oldest change has waited."""

    banks: int
    entries: int
    quarantined: int
    names: list[str]
    waits_s: float


def state(session: Session) -> State:
    """How hash banks are, of all accounts."""
    return State(*session.execute(_STATE).one())


def expire(session: Session, limit: int = 100) -> int:
    """on → expired for entries whose time is over; what they hit is decided again. How many."""
    ended = session.execute(_EXPIRED, {"limit": limit}).all()
    for row in ended:
        _end(session, row, "recheck", expired_at=True)
    return len(ended)


def quarantine(session: Session, most: int) -> list[Surge]:
    """on → quarantined for entries that hit more than `most` pictures in the last hour beyond their average of the week
    before. What they decided in that hour goes to people."""
    found: list[Surge] = []
    for row in session.execute(_SURGING, {"most": most}).all():
        if row.retroactive > most or row.pictures - row.usual <= most:
            continue
        bank = _end(session, row, "surge", expired_at=False)
        audit.record(
            session, bank.account_id, "system", "bank.entry_quarantine", str(row.id), pictures=row.pictures
        )  # fmt: skip
        found.append(Surge(row.id, bank.name, row.pictures, round(row.usual, 1)))
    return found


def _end(session: Session, row: Any, mode: str, *, expired_at: bool) -> Bank:
    bank = session.get_one(Bank, row.bank_id, with_for_update=True, populate_existing=True)
    entry = session.get_one(Entry, row.id, populate_existing=True)
    now = session.scalar(text("SELECT now()"))
    if expired_at:
        entry.expired_at = now
    else:
        entry.quarantined_at = now
    bank.revision += 1
    entry.revision = bank.revision
    session.flush()
    bank_changes.open_(session, bank, mode, "system", entry_id=entry.id, after=bank.revision - 1)
    return bank


_STATE = text(
    """
    SELECT count(DISTINCT b.id), count(e.id), count(e.id) FILTER (WHERE e.quarantined_at IS NOT NULL),
      coalesce(array_agg(DISTINCT b.name) FILTER (WHERE e.quarantined_at IS NOT NULL), '{}'),
      (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM bank_changes WHERE state <> 'done')
    FROM hash_banks b LEFT JOIN hash_entries e ON e.bank_id = b.id AND e.removed_at IS NULL WHERE b.removed_at IS NULL
    """
)
_EXPIRED = text(
    """
    SELECT id, bank_id FROM hash_entries
    WHERE expires_at <= now() AND expired_at IS NULL AND removed_at IS NULL
    ORDER BY bank_id, id LIMIT :limit
    """
)
# `usual`: the average hour of the seven days before the last hour, as far as the entry was there.
_SURGING = text(
    """
    SELECT e.id, e.bank_id, n.pictures, past.retroactive,
      past.pictures / greatest(1, least(168, extract(epoch FROM now() - e.created_at) / 3600 - 1))::float8 AS usual
    FROM (
      SELECT entry_id FROM hash_hits WHERE NOT retroactive AND created_at > now() - interval '1 hour'
      GROUP BY entry_id HAVING count(*) > :most) recent
    JOIN hash_entries e ON e.id = recent.entry_id
    JOIN LATERAL (
      SELECT count(DISTINCT h.sha256) AS pictures FROM hash_hits h
      WHERE h.entry_id = e.id AND NOT h.retroactive
        AND h.created_at > greatest(now() - interval '1 hour', e.released_at)) n ON true
    JOIN LATERAL (
      SELECT count(DISTINCT h.sha256) FILTER (WHERE NOT h.retroactive) AS pictures,
        count(*) FILTER (WHERE h.retroactive AND h.created_at > now() - interval '1 day') AS retroactive
      FROM hash_hits h
      WHERE h.entry_id = e.id AND h.created_at > now() - interval '169 hours'
        AND (h.retroactive OR h.created_at <= now() - interval '1 hour')) past ON true
    WHERE e.enabled AND e.removed_at IS NULL AND e.quarantined_at IS NULL AND e.expired_at IS NULL
    ORDER BY e.bank_id, e.id
    """
)
