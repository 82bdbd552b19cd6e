"""Retention clocks: what is kept for so many days and no longer, dropped by maintenance in bounded steps.

    uploads    the bytes as they were sent in, of jobs that ended so long ago: blobs only
    copies     working copies of pictures that came in so long ago and are not needed: blobs only, their facts stay
    results    jobs that ended so long ago, with their items, and pictures that no other item shows
    evidence   decisions, appeals and reviews of that age on pictures that no result shows any more
    audit      the oldest part of the audit log

Each function does one step in its caller's transaction and says how much it dropped and whether more is left.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit as audit_log
from db import blob_removals, erased_evidence, erased_items, erased_pictures, erasure_fence
from db.session import changed

BATCH: Final = 1000
NOBODY: Final = UUID(int=0)
"""In the place of an erasure: nobody asked, time passed. There are no tombstones of it."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """One step: how many things went, and whether another one may find more."""

    count: int
    more: bool


def uploads(session: Session, days: float, limit: int = BATCH) -> Dropped:
    """Note the uploads of the next jobs that ended so long ago, those that a later job has too left out."""
    clock = session.execute(_CLOCK, {"kind": "uploads"}).one()
    written, _, seq = (clock.place or f"{NOBODY}:{_DONE}").partition(":")
    after = int(seq)
    job = session.execute(_NEXT_JOB, {"at": clock.at, "job": written, "open": after != _DONE, "days": days}).first()
    if job is None:
        return Dropped(0, more=False)
    after = after if str(job.id) == written else -1
    parameters = {"bucket": job.bucket, "job_id": job.id, "after": after, "days": days, "limit": limit}
    rows = session.execute(_UPLOADS, parameters).all()
    blob_removals.ask(session, job.account_id, {row.raw_key for row in rows if not row.wanted}, aged=True)
    count = sum(not row.wanted for row in rows)
    place = f"{job.id}:{_DONE if len(rows) < limit else rows[-1].seq}"
    session.execute(_MOVE, {"kind": "uploads", "at": job.settled_at, "place": place})
    return Dropped(count, more=True)


def copies(session: Session, days: float, but_not: Collection[str] = (), limit: int = BATCH) -> Dropped:
    """Note the working copies of pictures that came so long ago: unless a result is younger, a job works with it, a
    person is to look at it, or it is among `but_not`, which datasets need."""
    rows = session.execute(_COPIES, {"days": days, "limit": limit, "but_not": list(but_not)}).all()
    by_account: dict[int, set[str]] = {}
    for row in rows:
        by_account.setdefault(row.account_id, set()).add(row.work_key)
    for account_id, keys in sorted(by_account.items()):
        blob_removals.ask(session, account_id, keys, aged=True)
    return Dropped(len(rows), more=len(rows) == limit)


def results(session: Session, days: float, limit: int = BATCH) -> Dropped:
    """Drop the next items of the job that ended longest ago, if that was so long ago; with the last of them the job."""
    job = session.execute(_OLDEST_JOB, {"days": days}).first()
    if job is None:
        return Dropped(0, more=False)
    erasure_fence.take_lock(session, job.account_id)
    part = {"bucket": job.bucket, "job_id": job.id, "limit": limit}
    seqs = list(session.scalars(_ITEMS, part))
    found = erased_items.erase(session, job.account_id, NOBODY, [(job.id, seq) for seq in seqs])
    shas = found.shas | {bytes.fromhex(key.rpartition("/")[2]) for key in found.raw_keys}
    unused = erased_pictures.unused(session, job.account_id, shas)
    erased_pictures.forget(session, job.account_id, NOBODY, unused, said=False)
    for table in ("results", "ingests", "items"):
        session.execute(_DROP[table], {**part, "seqs": seqs})
    if len(seqs) < limit:
        session.execute(_DROP["jobs"], {"job_id": job.id})
    return Dropped(len(seqs) + (len(seqs) < limit), more=True)


def evidence(session: Session, days: float, limit: int = BATCH) -> Dropped:
    """Drop what people and policies decided so long ago on pictures that no result shows any more."""
    count = 0
    batches = session.execute(_OLD_BATCHES, {"days": days, "limit": limit}).all()
    for account_id in sorted({row.account_id for row in batches}):
        ours = [row.batch for row in batches if row.account_id == account_id]
        covers = erased_evidence.of_batches(session, account_id, ours)
        count += changed(session.execute(_DROP_DECISIONS, {"account_id": account_id, "batches": ours, "days": days}))
        erased_evidence.after(session, account_id, NOBODY, covers)
    for statement in _OTHER_EVIDENCE:
        count += changed(session.execute(statement, {"days": days, "limit": limit}))
    return Dropped(count, more=count >= limit)


def audit(session: Session, days: float, limit: int = BATCH) -> Dropped:
    """Drop the oldest sealed entries of the audit log; the chain verifies from the seal after them."""
    count = int(session.execute(_PRUNE, {"days": days, "limit": limit}).scalar_one())
    if count:
        audit_log.record(session, None, "system", "audit.prune", "audit_log", entries=count)
    return Dropped(count, more=count >= limit)


def clocks(session: Session) -> dict[str, Any]:
    """How much each clock has dropped so far."""
    return {row.kind: row.dropped for row in session.execute(_CLOCKS)}


def note(session: Session, kind: str, count: int) -> None:
    """Count what a step dropped, for who wants to see that a clock runs."""
    session.execute(_NOTE, {"kind": kind, "dropped": count})


_DONE: Final = -2
_AGE = "now() - make_interval(secs => 86400 * CAST(:days AS float8))"
_CLOCK = text(
    """
    WITH made AS (INSERT INTO retention_clocks (kind) VALUES (:kind) ON CONFLICT DO NOTHING RETURNING at, place)
    SELECT at, place FROM made UNION ALL SELECT at, place FROM retention_clocks WHERE kind = :kind LIMIT 1
    """
)
_MOVE = text("UPDATE retention_clocks SET at = :at, place = :place, moved_at = now() WHERE kind = :kind")
_NOTE = text(
    """
    INSERT INTO retention_clocks (kind, dropped) VALUES (:kind, :dropped)
    ON CONFLICT (kind) DO UPDATE SET dropped = retention_clocks.dropped + excluded.dropped, moved_at = now()
    """
)
_CLOCKS = text("SELECT kind, dropped FROM retention_clocks")
_NEXT_JOB = text(
    f"""
    SELECT id, account_id, bucket, settled_at FROM jobs WHERE settled_at >= :at AND settled_at < {_AGE}
      AND (settled_at > :at OR id > CAST(:job AS uuid) OR (:open AND id = CAST(:job AS uuid)))
    ORDER BY settled_at, id LIMIT 1
    """
)
_UPLOADS = text(
    f"""
    SELECT i.seq, i.raw_key, EXISTS (
      SELECT FROM items t JOIN jobs k ON k.id = t.job_id
      WHERE t.raw_key = i.raw_key AND (k.settled_at IS NULL OR k.settled_at >= {_AGE})) AS wanted
    FROM items i WHERE i.bucket = :bucket AND i.job_id = :job_id AND i.seq > :after AND i.raw_key IS NOT NULL
    ORDER BY i.seq LIMIT :limit
    """
)
_COPIES = text(
    f"""
    UPDATE images SET aged_at = now() WHERE (account_id, sha256) IN (
      SELECT i.account_id, i.sha256 FROM images i
      WHERE i.aged_at IS NULL AND i.created_at < {_AGE} AND i.work_key <> ALL(CAST(:but_not AS text[]))
        AND NOT EXISTS (SELECT FROM results r WHERE r.account_id = i.account_id AND r.sha256 = i.sha256
          AND r.outcome = 'done' AND r.created_at >= {_AGE})
        AND NOT EXISTS (SELECT FROM review_tasks t WHERE t.account_id = i.account_id AND t.sha256 = i.sha256
          AND t.state = 'open')
        AND NOT EXISTS (SELECT FROM images o WHERE o.work_key = i.work_key AND o.created_at >= {_AGE})
        AND NOT EXISTS (SELECT FROM jobs j JOIN ingests g ON g.bucket = j.bucket AND g.job_id = j.id
          WHERE j.account_id = i.account_id AND j.settled_at IS NULL AND g.sha256 = i.sha256)
      ORDER BY i.created_at LIMIT :limit)
    RETURNING account_id, work_key
    """
)
# A rerun that is still to be published or taken back needs the results that it is about.
_OLDEST_JOB = text(
    f"""
    SELECT j.id, j.account_id, j.bucket FROM jobs j WHERE j.settled_at < {_AGE}
      AND NOT EXISTS (SELECT FROM reruns r
        WHERE r.job_id = j.id AND r.state IN ('staged', 'publishing', 'rolling_back'))
    ORDER BY j.settled_at, j.id LIMIT 1
    """
)
_ITEMS = text("SELECT seq FROM items WHERE bucket = :bucket AND job_id = :job_id ORDER BY seq LIMIT :limit")
_DROP: Final = {
    **{
        table: text(f"DELETE FROM {table} WHERE bucket = :bucket AND job_id = :job_id AND seq = ANY(:seqs)")
        for table in ("results", "ingests", "items")
    },
    "jobs": text("DELETE FROM jobs WHERE id = :job_id"),
}
_UNSHOWN = """NOT EXISTS (SELECT FROM results r
      WHERE r.account_id = d.account_id AND r.sha256 = d.sha256 AND r.outcome = 'done')"""
# Rows of one batch were written together; what of it is about a picture that is shown keeps the whole batch.
_OLD_BATCHES = text(
    f"""
    SELECT DISTINCT d.account_id, d.batch FROM decisions d
    WHERE d.created_at < {_AGE} AND d.batch IS NOT NULL AND NOT EXISTS (
      SELECT FROM decisions o JOIN results r ON r.account_id = o.account_id AND r.sha256 = o.sha256
      WHERE o.batch = d.batch AND r.outcome = 'done') LIMIT :limit
    """
)
_DROP_DECISIONS = text(
    f"DELETE FROM decisions WHERE account_id = :account_id AND batch = ANY(:batches) AND created_at < {_AGE}"
)
_OTHER_EVIDENCE: Final = tuple(
    text(f"DELETE FROM {table} WHERE id IN (SELECT d.id FROM {table} d WHERE {which} AND {_UNSHOWN} LIMIT :limit)")
    for table, which in (
        ("appeals", f"d.decided_at < {_AGE}"),
        ("review_tasks", f"d.state <> 'open' AND d.created_at < {_AGE}"),
    )
)
_PRUNE = text("SELECT tagmill_prune_audit(:days, :limit)")
