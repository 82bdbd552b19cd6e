"""Entries of hash banks that end by themselves: those that expire, and those that suddenly hit too much; and those
that found too much when they came.

    on ──(its time is over)──► expired
    on ──(too many pictures in an hour, beyond what it used to hit)──► quarantined ──(a person releases it)──► on
    on ──(too many of the pictures there are)──► wide ──(a person has looked)──► on

What comes in counts for the quarantine, from the entry's first minute. What an entry finds among the pictures there
are does not: somebody asked for that. It goes on to count, and is shown as wide until somebody has looked.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit, bank_changes
from db.bank_tables import Bank, BankChange, Entry
from db.banks import COUNTS, STATE


@dataclass(frozen=True)
class Surge:
    """An entry that went into quarantine: pictures of its last hour, and what it hit in an hour on average before."""

    entry_id: UUID
    bank: str
    pictures: int
    usual: float


@dataclass(frozen=True)
class Wide:
    """An entry that found so many of the pictures there were, more than the limit."""

    entry_id: UUID
    bank: str
    pictures: int


@dataclass(frozen=True)
class State:
    """All banks together: entries that are not removed, those in quarantine and the names of their banks, wide ones
    likewise, and how long the oldest change has waited."""

    banks: int
    entries: int
    quarantined: int
    names: list[str]
    wide: int
    wide_names: list[str]
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
        if row.pictures - row.usual <= most:
            continue
        bank = _end(session, row, "surge", expired_at=False)
        audit.record(
            session, bank.account_id, "system", "bank.entry_quarantine", str(row.id), pictures=row.pictures
        )  # fmt: skip
        found.append(Surge(row.id, bank.name, row.pictures, round(row.usual, 1)))
    return found


def measure(session: Session, change: BankChange, most: int) -> list[Wide]:
    """on → wide for entries of this change that found more than `most` of the pictures there were since somebody last
    looked, as far as they count now; wide → on for those that no longer do. Which are wide that were not."""
    parameters = {
        "bank_id": change.bank_id,
        "entry_id": change.entry_id,
        "after": change.after,
        "upto": change.upto,
        "most": most,
    }
    if not session.execute(_WIDE, parameters).all():
        return []
    # Entries change under the lock of their bank: who looks at one right now is not overruled by an older count.
    bank = session.get_one(Bank, change.bank_id, with_for_update=True, populate_existing=True)
    other = session.execute(_WIDE, parameters).all()
    if other:
        session.execute(_MARK, [{"id": row.id, "wide": row.found} for row in other])
    return [Wide(row.id, bank.name, row.found) for row in other if row.wide is None]


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
    f"""
    SELECT count(DISTINCT bank), count(entry), count(entry) FILTER (WHERE state = 'quarantined'),
      coalesce(array_agg(DISTINCT name) FILTER (WHERE state = 'quarantined'), '{{}}'),
      count(entry) FILTER (WHERE state = 'wide'),
      coalesce(array_agg(DISTINCT name) FILTER (WHERE state = 'wide'), '{{}}'),
      (SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM bank_changes WHERE state <> 'done')
    FROM (
      SELECT b.id AS bank, b.name, e.id AS entry, {STATE} AS state
      FROM hash_banks b LEFT JOIN hash_entries e ON e.bank_id = b.id AND e.removed_at IS NULL
      WHERE b.removed_at IS NULL) each
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
    SELECT e.id, e.bank_id, n.pictures,
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
      SELECT count(DISTINCT h.sha256) AS pictures FROM hash_hits h
      WHERE h.entry_id = e.id AND NOT h.retroactive
        AND h.created_at > now() - interval '169 hours' AND h.created_at <= now() - interval '1 hour') past ON true
    WHERE e.enabled AND e.removed_at IS NULL AND e.quarantined_at IS NULL AND e.expired_at IS NULL
    ORDER BY e.bank_id, e.id
    """
)
# Of a change's entries those whose `wide` is not what it should be. The share is that of `banks.rolled_out`.
_WIDE = text(
    f"""
    SELECT * FROM (
      SELECT e.id, e.wide, nullif(greatest(count(DISTINCT h.sha256) FILTER (WHERE {COUNTS}), :most), :most) AS found
      FROM hash_entries e JOIN hash_banks b ON b.id = e.bank_id
      LEFT JOIN (hash_hits h JOIN images i ON i.account_id = h.account_id AND i.sha256 = h.sha256)
        ON h.entry_id = e.id AND h.retroactive AND h.distance <= b.distance AND i.pdq_quality >= b.quality
        AND (e.released_at IS NULL OR h.created_at > e.released_at)
        AND (e.share >= 1 OR
          ('x' || encode(substr(sha256(h.sha256), 1, 4), 'hex'))::bit(32)::bigint < e.share::float8 * 4294967296)
      WHERE e.bank_id = :bank_id AND e.revision > :after AND e.revision <= :upto
        AND (CAST(:entry_id AS uuid) IS NULL OR e.id = :entry_id)
      GROUP BY e.id) counted
    WHERE wide IS DISTINCT FROM found ORDER BY id
    """
)
_MARK = text("UPDATE hash_entries SET wide = :wide WHERE id = :id")
