"""What the queue makes of verdicts that a published rerun has changed, as the rows of `decisions` tell it."""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import review_queue
from db.review_sources import candidate


def follow(session: Session, account_id: int, batch: UUID) -> None:
    """People look at what became doubtful in this batch of decisions, and need not look at what no longer is."""
    wanted, left = [], []
    for row in session.execute(_CHANGED, {"account_id": account_id, "batch": batch}):
        sha = bytes(row.sha256)
        if row.after["verdict"] == "review":
            asked = candidate(account_id, row.job_id, row.seq, sha, row.context, row.after, 0.0)
            wanted += [] if asked is None else [asked]
        elif row.was == "review":
            left.append((sha, row.context))
    review_queue.enqueue(session, account_id, wanted)
    review_queue.close_resolved(session, account_id, left)


_CHANGED = text(
    """
    SELECT job_id, seq, sha256, context, before ->> 'verdict' AS was, after FROM decisions
    WHERE account_id = :account_id AND batch = :batch AND kind = 'rerun'
      AND before ->> 'verdict' IS DISTINCT FROM after ->> 'verdict'
    """
)
