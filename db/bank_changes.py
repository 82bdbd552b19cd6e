"""Changes of banks to work off over the pictures there are: opened, matched, taken in batches, ended.

    waiting ──(the pictures that it concerns are listed, newest first)──► deciding ──(all decided again)──► done

Maintenance moves them on, one process at a time; whatever it had not committed when it died, the next one does. How a
picture is decided again is in `db.bank_redecisions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import locks
from db.bank_tables import Bank, BankChange
from db.errors import NotFound
from db.ids import uuid7

MATCHING: Final = "hash banks"
"""The advisory lock that transactions which match or record share, and that is taken alone to wait for them."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """A picture that is to be decided again."""

    account_id: int
    sha256: bytes


def open_(session: Session, bank: Bank, mode: str, actor: str, *, entry_id: UUID | None = None, after: int = 0) -> UUID:
    """A new change of the bank, as it is now: of one entry, or of those with revisions above `after`."""
    change_id = uuid7()
    parameters = {
        "id": change_id,
        "account_id": bank.account_id,
        "bank_id": bank.id,
        "entry_id": entry_id,
        "after": after,
        "upto": bank.revision,
        "mode": mode,
        "actor": actor,
    }
    session.execute(_OPEN, parameters)
    return change_id


def read(session: Session, account_id: int | None, bank_id: UUID, change_id: UUID) -> BankChange:
    """One change of a bank; NotFound."""
    found = session.scalar(
        select(BankChange).where(
            BankChange.id == change_id,
            BankChange.bank_id == bank_id,
            BankChange.account_id.is_not_distinct_from(account_id),
        )
    )
    if found is None:
        raise NotFound("There is no such change.")
    return found


def newest(session: Session, account_id: int | None, bank_id: UUID, limit: int = 20) -> list[BankChange]:
    """The newest changes of a bank."""
    query = select(BankChange).where(
        BankChange.bank_id == bank_id, BankChange.account_id.is_not_distinct_from(account_id)
    )
    return list(session.scalars(query.order_by(BankChange.id.desc()).limit(limit)))


def share_lock(session: Session) -> None:
    """For a transaction that matches pictures or records verdicts: from here on it sees every entry that a change is
    being worked off for, or that work waits for it."""
    session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": locks.lock_key(MATCHING)})


def wait_for_matching(session: Session) -> None:
    """Until every transaction that matched or recorded without the newest entries has ended. In a transaction of its
    own, which ends at once: those that begin meanwhile wait for it."""
    locks.lock(session, MATCHING)


def get(session: Session, change_id: UUID) -> BankChange:
    """A change, of whatever account: for those that work it off."""
    return session.get_one(BankChange, change_id, populate_existing=True)


def next_open(session: Session) -> BankChange | None:
    """The change to go on with: of those that are not done, one of a single entry before one of many; the oldest."""
    query = select(BankChange).where(BankChange.state != "done")
    return session.scalar(query.order_by(BankChange.entry_id.is_(None), BankChange.created_at).limit(1))


def list_hit(session: Session, change_id: UUID) -> int:
    """waiting → deciding: what the entries of the change hit is to be decided again, newest first. How many pictures.

    Of a surge, only what came within the hour before it. Nothing where another process was faster.
    """
    change = session.scalar(select(BankChange).where(BankChange.id == change_id).with_for_update())
    if change is None or change.state != "waiting":
        return 0
    parameters = {
        "id": change.id,
        "bank_id": change.bank_id,
        "entry_id": change.entry_id,
        "after": change.after,
        "upto": change.upto,
        "surge": change.mode == "surge",
        "began": change.created_at,
    }
    listed = len(session.execute(_LIST, parameters).all())
    session.execute(_MATCHED, {"id": change.id, "pictures": listed})
    return listed


def take(session: Session, change_id: UUID | None, limit: int) -> list[Recheck]:
    """The next pictures of a change (None: of none), newest first, off the list; another process takes others."""
    rows = session.execute(_TAKE, {"id": change_id, "limit": limit})
    return [Recheck(row.account_id, bytes(row.sha256)) for row in rows]


def count(session: Session, change_id: UUID, *, results: int, changed: int, kept: int) -> None:
    """Add to what a change has done."""
    session.execute(_COUNT, {"id": change_id, "results": results, "changed": changed, "kept": kept})


def end(session: Session, change_id: UUID) -> bool:
    """deciding → done, if nothing of it is left, also not in another process's hands."""
    return session.execute(_END, {"id": change_id}).first() is not None


def recheck(session: Session, account_id: int, shas: Sequence[bytes]) -> None:
    """These pictures are to be decided again, for no change in particular."""
    if shas:
        session.execute(_RECHECK, {"account_id": account_id, "shas": list(shas)})


def recheck_moved(session: Session, rerun_id: UUID, after: int, last: int) -> None:
    """Pictures of a rerun's items (their numbers: above `after`, up to `last`) that an entry ever hit are to be decided
    again."""
    session.execute(_RECHECK_MOVED, {"rerun": rerun_id, "after": after, "last": last})


_OPEN = text(
    """
    INSERT INTO bank_changes (id, account_id, bank_id, entry_id, after, upto, mode, actor)
    VALUES (:id, :account_id, :bank_id, :entry_id, :after, :upto, :mode, :actor)
    """
)
_LIST = text(
    """
    INSERT INTO bank_rechecks (account_id, sha256, change_id, seen_at)
    SELECT h.account_id, h.sha256, :id, max(i.created_at)
    FROM hash_hits h JOIN hash_entries e ON e.id = h.entry_id
    JOIN images i ON i.account_id = h.account_id AND i.sha256 = h.sha256
    WHERE e.bank_id = :bank_id AND e.revision > :after AND e.revision <= :upto
      AND (CAST(:entry_id AS uuid) IS NULL OR e.id = :entry_id)
      AND (NOT :surge OR (NOT h.retroactive AND h.created_at > CAST(:began AS timestamptz) - interval '1 hour'))
    GROUP BY 1, 2 RETURNING id
    """
)
_MATCHED = text("UPDATE bank_changes SET state = 'deciding', pictures = :pictures, matched_at = now() WHERE id = :id")
_TAKE = text(
    """
    DELETE FROM bank_rechecks WHERE id IN (
      SELECT id FROM bank_rechecks WHERE change_id IS NOT DISTINCT FROM CAST(:id AS uuid)
      ORDER BY seen_at DESC LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING account_id, sha256
    """
)
_COUNT = text(
    "UPDATE bank_changes SET results = results + :results, changed = changed + :changed, kept = kept + :kept"
    " WHERE id = :id"
)
_END = text(
    """
    UPDATE bank_changes SET state = 'done', finished_at = now() WHERE id = :id AND state = 'deciding'
      AND NOT EXISTS (SELECT FROM bank_rechecks WHERE change_id = :id) RETURNING id
    """
)
_RECHECK = text(
    """
    INSERT INTO bank_rechecks (account_id, sha256)
    SELECT :account_id, sha256 FROM unnest(CAST(:shas AS bytea[])) AS s(sha256)
    """
)
_RECHECK_MOVED = text(
    """
    INSERT INTO bank_rechecks (account_id, sha256)
    SELECT DISTINCT r.account_id, r.sha256
    FROM rerun_items k JOIN results r ON r.bucket = k.bucket AND r.job_id = k.job_id AND r.seq = k.source_seq
    WHERE k.rerun_id = :rerun AND k.seq > :after AND k.seq <= :last
      AND EXISTS (SELECT FROM hash_hits h WHERE h.account_id = r.account_id AND h.sha256 = r.sha256)
    """
)
