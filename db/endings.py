"""The end of jobs: the finaliser's statements. Every one holds the job row's lock, so that two last chunks at once,
or two finalisers, end a job exactly once."""

from dataclasses import asdict
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import moderation_state, outbox
from db.progress import progress


def finishable(session: Session, limit: int = 100) -> list[UUID]:
    """Jobs that wait for their end: open ones without an open chunk, and cancelled ones that nobody works on."""
    return list(session.scalars(_FINISHABLE, {"limit": limit}))


def cancel_rest(session: Session, job_id: UUID, after_seq: int = -1, limit: int = 20_000) -> int | None:
    """Write the outcome `cancelled` for the next items of a cancelled job that were never reached.

    Returns the `after_seq` for the next call, None when there is nothing (more) to do. A transaction a call: a job of
    millions of items is never one long statement.
    """
    job = session.execute(_LOCK_JOB, {"id": job_id}).first()
    if job is None or job.settled_at is not None or job.state != "cancelled":
        return None
    session.execute(_CLOSE_READY, {"id": job_id})
    if session.scalar(_HAS_OPEN_CHUNK, {"id": job_id}):
        return None
    parameters = {"id": job_id, "after": after_seq, "limit": limit}
    last: int | None = session.scalar(_CANCEL_SOME, parameters)
    return last


def finish(session: Session, job_id: UUID) -> bool:
    """running → finished, or settle a cancelled job; writes its one event of this round. False when not yet due."""
    job = session.execute(
        text("SELECT id, account_id, state, round, settled_at FROM jobs WHERE id = :id FOR UPDATE"),
        {"id": job_id},
    ).first()
    if job is None or job.settled_at is not None:
        return False
    if job.state == "cancelled":
        session.execute(_CLOSE_READY, {"id": job_id})
    if session.scalar(_HAS_OPEN_CHUNK, {"id": job_id}):
        return False
    if job.state == "cancelled":
        session.execute(_CANCEL_SOME, {"id": job_id, "after": -1, "limit": 2**31 - 1})
    session.execute(_SETTLE, {"id": job_id})
    moderation_state.refresh(session, job.account_id, [job_id])  # an upload that was cancelled
    now = progress(session, job_id)
    event = "job.cancelled" if job.state == "cancelled" else "job.finished"
    payload = {"job": str(job_id), "round": job.round, "total": now.total, **asdict(now)["outcomes"]}
    outbox.emit(session, job.account_id, event, str(job_id), payload, round_=job.round)
    return True


# A job is finishable only when all its chunks are done; a new chunk is made in the transaction that ends its
# predecessor, so between the two there is never a moment without an open chunk.
_FINISHABLE = text(
    """
    SELECT j.id FROM jobs j WHERE j.settled_at IS NULL AND NOT EXISTS (
      SELECT 1 FROM chunks c WHERE c.job_id = j.id AND c.state <> 'done'
        AND (j.state <> 'cancelled' OR c.state = 'leased'))
    ORDER BY j.id LIMIT :limit
    """
)
_LOCK_JOB = text("SELECT id, account_id, state, round, settled_at FROM jobs WHERE id = :id FOR UPDATE")
_HAS_OPEN_CHUNK = text("SELECT EXISTS (SELECT 1 FROM chunks WHERE job_id = :id AND state <> 'done')")
# SKIP LOCKED: a claim that holds a chunk waits for the job row that we hold; waiting for it would be a deadlock.
_CLOSE_READY = text(
    """
    UPDATE chunks SET state = 'done', finished_at = now() WHERE id IN (
      SELECT id FROM chunks WHERE job_id = :id AND state = 'ready' FOR UPDATE SKIP LOCKED)
    """
)
_CANCEL_SOME = text(
    """
    WITH rest AS (
      SELECT i.bucket, i.job_id, i.seq, i.account_id
      FROM jobs j JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id
      WHERE j.id = :id AND i.seq > :after AND NOT EXISTS (
        SELECT 1 FROM results r WHERE r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq)
      ORDER BY i.seq LIMIT :limit
    ), added AS (
      INSERT INTO results (bucket, job_id, seq, account_id, outcome, code)
      SELECT bucket, job_id, seq, account_id, 'cancelled', 'cancelled' FROM rest
      ON CONFLICT DO NOTHING RETURNING seq
    ), counted AS (
      UPDATE jobs SET cancelled = cancelled + (SELECT count(*) FROM added) WHERE id = :id
    )
    SELECT max(seq) FROM rest
    """
)
_SETTLE = text(
    """
    UPDATE jobs SET settled_at = now(), state = CASE WHEN state = 'cancelled' THEN state ELSE 'finished' END
    WHERE id = :id
    """
)
