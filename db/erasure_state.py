"""How erasures are, of all accounts: for who looks after the installation. Changes nothing, and reads no target."""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

Step = Literal["asked", "rows", "blobs", "journal", "again"]


@dataclass(frozen=True)
class Open:
    """An erasure that is not settled: what it waits for, for how many seconds, and how many of its blobs are there.
    `again`: it is finished, and to be looked for once more."""

    id: UUID
    kind: str
    step: Step
    since_s: float
    blobs: int


@dataclass(frozen=True)
class State:
    """`finished`: the newest ones that have a journal, at most a thousand. `blobs` are to be removed and are there, the
    first of them (`key`) for `blobs_s`."""

    asked: int
    open: list[Open]
    finished: list[UUID]
    blobs: int
    blobs_s: float
    key: str | None


def state(session: Session) -> State:
    """How they are now; the longest first. For the role of workers, or the owner: the API's sees one account."""
    waiting = [Open(row.id, row.kind, row.step, float(row.since_s), int(row.blobs)) for row in session.execute(_OPEN)]
    row: Any = session.execute(_BLOBS).one()
    return State(
        asked=int(session.execute(_ASKED).scalar_one()),
        open=waiting,
        finished=list(session.scalars(_FINISHED)),
        blobs=int(row.blobs),
        blobs_s=float(row.since_s),
        key=row.key,
    )


_ASKED = text("SELECT count(*) FROM erasures")
_OPEN = text(
    """
    SELECT id, kind, step, extract(epoch FROM now() - since) AS since_s, blobs FROM (
      SELECT e.id, e.kind, b.blobs, CASE WHEN e.state = 'asked' THEN 'asked' WHEN e.state = 'finished' THEN 'again'
          WHEN e.rows_at IS NULL THEN 'rows' WHEN b.blobs > 0 THEN 'blobs' ELSE 'journal' END AS step,
        coalesce(e.finished_at, e.rows_at, e.started_at, e.created_at) AS since
      FROM erasures e, LATERAL (
        SELECT count(*) AS blobs FROM blob_removals r WHERE r.erasure_id = e.id AND r.gone_at IS NULL) b
      WHERE e.settled_at IS NULL) AS found
    ORDER BY since, id LIMIT 1000
    """
)
_FINISHED = text("SELECT id FROM erasures WHERE state = 'finished' ORDER BY id DESC LIMIT 1000")
_BLOBS = text(
    """
    SELECT count(*) AS blobs, coalesce(extract(epoch FROM now() - min(asked_at)), 0) AS since_s,
      (array_agg(key ORDER BY asked_at))[1] AS key FROM blob_removals WHERE gone_at IS NULL
    """
)
