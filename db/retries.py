"""Retrying what failed: the failed outcomes of a settled job are taken back, and new chunks made of those items."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, moderation_state
from db.chunks import TURN_NOW
from db.errors import Conflict, NotFound
from db.jobs import chunk_size_of
from db.progress import progress
from db.tables import Job


def retry(
    session: Session,
    account_id: int,
    job_id: UUID,
    codes: Sequence[str] | None = None,
    *,
    chunk_size: int = 512,
    actor: str = "api",
) -> int:
    """finished or cancelled → running, a new round with the failed items (of these codes, or all that failed).

    Returns how many items were put back; 0 leaves the job as it is. Items that failed before they had a working
    copy, or lost it, start over; the others only repeat inference. Raises Conflict while the job is not settled.
    """
    job = session.scalar(select(Job).where(Job.account_id == account_id, Job.id == job_id).with_for_update())
    if job is None:
        raise NotFound("There is no such job.")
    if job.settled_at is None:
        raise Conflict("The job is still working; retry when it has ended.")
    parameters: dict[str, Any] = {
        "id": job_id,
        "bucket": job.bucket,
        "all": codes is None,
        "codes": list(codes or ()),
    }
    put_back = session.execute(_TAKE_BACK, parameters).all()
    if not put_back:
        return 0
    again = {row.seq for row in put_back if not row.ingested}
    ingest = sorted(r.seq for r in put_back if not r.ingested and (r.same_as is None or r.same_as not in again))
    infer = sorted(row.seq for row in put_back if row.ingested)
    session.execute(_FORGET_INGESTS, {**parameters, "seqs": sorted(again)})
    session.execute(_NEW_ROUND, {"id": job_id, "settled": json.dumps(_tally(session, job))})
    size = chunk_size_of(job.lane, chunk_size)
    for stage, seqs in (("ingest", ingest), ("infer", infer)):
        parts = [seqs[start : start + size] for start in range(0, len(seqs), size)]
        chunks = [
            {"id": job_id, "stage": stage, "lo": part[0], "hi": part[-1] + 1, "seqs": part, "nth": nth}
            for nth, part in enumerate(parts)
        ]
        if chunks:
            session.execute(_ADD_CHUNK, chunks)
    moderation_state.refresh(session, account_id, [job_id])
    audit.record(session, account_id, actor, "job.retry", str(job_id), items=len(put_back))
    session.refresh(job)
    return len(put_back)


def _tally(session: Session, job: Job) -> dict[str, Any]:
    """The sums of what is settled, counted from the rows that stay: the base of the new round's progress."""
    parameters = {"bucket": job.bucket, "id": job.id}
    ingested: dict[str, int] = dict(session.execute(_COUNT_INGESTS, parameters).all())
    tally: dict[str, Any] = {"codes": {}, "ingested": ingested.get("done", 0)}
    tally["reused"] = progress(session, job.id).reused  # no row of an item says it
    for outcome, code, was_ingested, count in session.execute(_COUNT_RESULTS, parameters):
        name = {"done": "done", "cancelled": "cancelled"}.get(
            outcome, "infer_failed" if was_ingested else "ingest_failed"
        )
        tally[name] = tally.get(name, 0) + count
        if outcome == "failed":
            tally["codes"][code] = tally["codes"].get(code, 0) + count
    return tally


_TAKE_BACK = text(
    """
    DELETE FROM results r USING items i
    WHERE r.bucket = :bucket AND r.job_id = :id AND r.code IS NOT NULL AND r.code <> 'erased'
      AND ((:all AND r.outcome = 'failed') OR r.code = ANY(:codes))
      AND i.bucket = r.bucket AND i.job_id = r.job_id AND i.seq = r.seq
    RETURNING r.seq, i.same_as, EXISTS (
      SELECT 1 FROM ingests g WHERE g.bucket = r.bucket AND g.job_id = r.job_id AND g.seq = r.seq
        AND g.outcome = 'done' AND r.code NOT IN ('blob_missing', 'blob_altered')) AS ingested
    """
)
_FORGET_INGESTS = text("DELETE FROM ingests WHERE bucket = :bucket AND job_id = :id AND seq = ANY(:seqs)")
_NEW_ROUND = text(
    """
    UPDATE jobs SET state = 'running', round = round + 1, settled = CAST(:settled AS jsonb), cancelled = 0,
      settled_at = NULL, cancelled_at = NULL WHERE id = :id
    """
)
_ADD_CHUNK = text(
    f"""
    INSERT INTO chunks (account_id, job_id, bucket, round, stage, lo, hi, seqs, urgent, turn)
    SELECT account_id, id, bucket, round, :stage, :lo, :hi, :seqs, lane = 'interactive', {TURN_NOW} + :nth
    FROM jobs j WHERE id = :id
    """
)
_COUNT_INGESTS = text("SELECT outcome, count(*) FROM ingests WHERE bucket = :bucket AND job_id = :id GROUP BY outcome")
_COUNT_RESULTS = text(
    """
    SELECT r.outcome, r.code, g.outcome IS NOT DISTINCT FROM 'done' AS ingested, count(*)
    FROM results r LEFT JOIN ingests g ON g.bucket = r.bucket AND g.job_id = r.job_id AND g.seq = r.seq
    WHERE r.bucket = :bucket AND r.job_id = :id GROUP BY 1, 2, 3
    """
)
