"""The reaper's statements: chunks whose lease ran out, or whose owner's heartbeat stopped, go back to `ready`;
after three claims without an end a chunk is halved, and a single item that did it gets the outcome `poison`."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.chunks import Chunk, items, leased
from db.recording import InferOutcome, IngestOutcome, finish_infer, finish_ingest
from db.states import MAX_ATTEMPTS


@dataclass
class Reaped:
    """What one pass did, in chunks."""

    released: int = 0
    split: int = 0
    poisoned: int = 0


def reap(session: Session, limit: int = 200, *, stale_s: float = 20.0) -> Reaped:
    """leased → ready for expired chunks; halves or ends those that were claimed MAX_ATTEMPTS times.

    `stale_s`: an owner that beat once but not for so long is dead, and its leases need not run out.
    """
    reaped = Reaped()
    for row in session.execute(_EXPIRED, {"limit": limit, "stale_s": stale_s}).all():
        if row.attempts < MAX_ATTEMPTS:
            session.execute(_BACK_TO_READY, {"id": row.id})
            reaped.released += 1
        elif row.members > 1:
            _halve(session, row)
            reaped.split += 1
        else:
            _poison(session, leased(session, row.id))
            reaped.poisoned += 1
    return reaped


def _halve(session: Session, row: Any) -> None:
    """Two ready chunks instead of one, each one claim short of the next halving and as old as the one."""
    if row.seqs is not None:
        middle = len(row.seqs) // 2
        left, right = row.seqs[:middle], row.seqs[middle:]
        bounds = (left[0], left[-1] + 1), (right[0], right[-1] + 1)
    else:
        left = right = None
        middle = (row.lo + row.hi) // 2
        bounds = (row.lo, middle), (middle, row.hi)
    attempts = {"id": row.id, "attempts": MAX_ATTEMPTS - 1}
    session.execute(_ADD_HALF, {**attempts, "lo": bounds[1][0], "hi": bounds[1][1], "seqs": right})
    session.execute(_KEEP_HALF, {**attempts, "lo": bounds[0][0], "hi": bounds[0][1], "seqs": left})


def _poison(session: Session, chunk: Chunk) -> None:
    detail = f"{chunk.attempts} tries ended with the death of their process"
    if chunk.stage == "ingest":
        failed = [IngestOutcome(item.seq, code="poison", detail=detail) for item in items(session, chunk)]
        finish_ingest(session, chunk, failed)
    else:
        outcomes = [InferOutcome(seq, code="poison", detail=detail) for seq in chunk.members]
        finish_infer(session, chunk, outcomes)


_EXPIRED = text(
    """
    SELECT c.id, c.attempts, c.lo, c.hi, c.seqs, coalesce(cardinality(c.seqs), c.hi - c.lo) AS members
    FROM chunks c LEFT JOIN workers w ON w.id = c.owner
    WHERE c.state = 'leased' AND (c.lease_until < now() OR w.gone_at IS NOT NULL
      OR w.last_seen_at < now() - make_interval(secs => :stale_s))
    ORDER BY c.id LIMIT :limit FOR UPDATE OF c SKIP LOCKED
    """
)
_BACK_TO_READY = text(
    """
    UPDATE chunks SET state = 'ready', owner = NULL, lease_until = NULL, hinted_at = NULL, progress = 0
    WHERE id = :id
    """
)
_ADD_HALF = text(
    """
    INSERT INTO chunks (account_id, job_id, bucket, round, stage, lo, hi, seqs, urgent, turn, attempts, deferrals,
      created_at)
    SELECT account_id, job_id, bucket, round, stage, :lo, :hi, :seqs, urgent, turn, :attempts, deferrals, created_at
    FROM chunks WHERE id = :id
    """
)
_KEEP_HALF = text(
    """
    UPDATE chunks SET state = 'ready', owner = NULL, lease_until = NULL, hinted_at = NULL, progress = 0,
      attempts = :attempts, lo = :lo, hi = :hi, seqs = :seqs WHERE id = :id
    """
)
