"""The sample of a shadow run: which pictures of the line are in it, and what both models said of them.

A picture is in the sample by its own SHA-256: every run with the same share takes the same pictures, and a larger share
takes them and more. Only what a job has finished with the active model counts, never a rerun.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.errors import LeaseLost
from db.learning_tables import ShadowRun
from db.shadow import ours

CHUNKS = 8
"""Finished chunks that are looked through at a time."""

Side = Literal["picture", "active", "candidate"]
Position = tuple[datetime, int]  # when a chunk was finished, and its id


@dataclass(frozen=True, slots=True)
class SamplePicture:
    """A picture of the sample, with one of the items that showed it and its working copy."""

    account_id: int
    sha256: bytes
    job_id: UUID
    seq: int
    work_key: str
    work_sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Sample:
    """The next pictures of a run. `position`: how far it has looked once these are recorded; `more`: look again."""

    pictures: list[SamplePicture]
    position: Position
    more: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """Both models' scores of a picture, in the order of their labels; or the `code` of what failed, and whose fault it
    was: the picture's own (`picture`) or a model's."""

    picture: SamplePicture
    active: Sequence[float] | None = None
    candidate: Sequence[float] | None = None
    side: Side | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that each model took for what is recorded with it."""

    active_s: float = 0.0
    candidate_s: float = 0.0


@dataclass(slots=True)
class Recorded:
    """A picture as a report reads it; `account_id` and `sha256` are its place in the order."""

    account_id: int
    sha256: bytes
    job_id: UUID
    seq: int
    active: list[float] | None
    candidate: list[float] | None
    side: Side | None
    code: str | None


def next_pictures(session: Session, run: ShadowRun, limit: int, settle_s: float) -> Sample:
    """At most `limit` pictures of the sample that the run has not recorded, oldest chunk first.

    Chunks finished less than `settle_s` ago are left to a later call: transactions that began before them may still
    commit, and would be passed over. The run's limit of pictures is kept too.
    """
    position = {"at": run.seen_at, "chunk": run.seen_chunk}
    chunks = session.execute(_CHUNKS, {**position, "settle_s": settle_s, "limit": CHUNKS}).all()
    if not chunks:
        return Sample([], (run.seen_at, run.seen_chunk), more=False)
    if run.pictures is not None:
        limit = min(limit, run.pictures - run.compared - run.failed)
    parameters = {
        "chunks": [row.id for row in chunks],
        "run": run.id,
        "task": run.task,
        "against": run.against,
        "threshold": round(run.share * 2**32),
        "limit": limit + 1,
    }
    rows = session.execute(_PICTURES, parameters).all()
    pictures = [
        SamplePicture(
            row.account_id, bytes(row.sha256), row.job_id, row.seq, row.work_key,
            None if row.work_sha256 is None else bytes(row.work_sha256),
        )
        for row in rows[:limit]
    ]  # fmt: skip
    if len(rows) > limit:  # what is recorded is not chosen again, so the position may stay where it is
        return Sample(pictures, (run.seen_at, run.seen_chunk), more=True)
    return Sample(pictures, (chunks[-1].finished_at, chunks[-1].id), more=len(chunks) == CHUNKS)


def record(
    session: Session,
    run: ShadowRun,
    compared: Sequence[Compared],
    position: Position,
    *,
    spent: Spent = Spent(),
    agreed: Mapping[str, int] | None = None,
    delay_s: float = 0.0,
) -> None:
    """Store a turn's pictures, move the run on and hand it back; nobody takes it up for `delay_s`.

    `agreed`: by group of labels, how many of these pictures have the same best label. Raises LeaseLost (roll back).
    """
    failed = sum(each.code is not None for each in compared)
    total = {group: run.agreed.get(group, 0) + count for group, count in (agreed or {}).items()}
    parameters = {
        **ours(run),
        "at": position[0],
        "chunk": position[1],
        "compared": len(compared) - failed,
        "failed": failed,
        "agreed": json.dumps({**run.agreed, **total}),
        "active_s": spent.active_s,
        "candidate_s": spent.candidate_s,
        "delay_s": delay_s,
    }
    if session.execute(_MOVE_ON, parameters).first() is None:
        raise LeaseLost(f"The shadow run {run.id} is no longer leased with fence {run.fence}.")
    if compared:
        session.execute(_ADD, {"run": run.id, "rows": json.dumps([_row(each) for each in compared])})


def recorded(session: Session, run_id: UUID, after: tuple[int, bytes] = (0, b""), limit: int = 1000) -> list[Recorded]:
    """The next recorded pictures of a run after this place, in order; empty at the end."""
    rows = session.execute(_RECORDED, {"run": run_id, "account": after[0], "sha256": after[1], "limit": limit})
    return [
        Recorded(
            row.account_id, bytes(row.sha256), row.job_id, row.seq, row.active, row.candidate, row.side, row.code
        )
        for row in rows
    ]  # fmt: skip


def _row(compared: Compared) -> dict[str, Any]:
    picture = compared.picture
    return {
        "account_id": picture.account_id,
        "sha256": picture.sha256.hex(),
        "job_id": str(picture.job_id),
        "seq": picture.seq,
        "active": None if compared.active is None else list(compared.active),
        "candidate": None if compared.candidate is None else list(compared.candidate),
        "side": compared.side,
        "code": compared.code,
    }


_CHUNKS = text(
    """
    SELECT id, finished_at FROM chunks
    WHERE stage = 'infer' AND state = 'done' AND (finished_at, id) > (:at, :chunk)
      AND finished_at <= now() - make_interval(secs => :settle_s)
    ORDER BY finished_at, id LIMIT :limit
    """
)
# The hash of the hash: shares must not depend on which SHA-256 sums are common, for somebody may choose them.
_PICTURES = text(
    """
    SELECT * FROM (
      SELECT DISTINCT ON (r.account_id, r.sha256) r.account_id, r.sha256, r.job_id, r.seq, g.work_key, g.work_sha256,
        c.finished_at, c.id AS chunk
      FROM chunks c
      JOIN jobs j ON j.id = c.job_id
      JOIN results r ON r.bucket = c.bucket AND r.job_id = c.job_id AND r.seq >= c.lo AND r.seq < c.hi
        AND (c.seqs IS NULL OR r.seq = ANY(c.seqs))
      JOIN images g ON g.account_id = r.account_id AND g.sha256 = r.sha256
      WHERE c.id = ANY(:chunks) AND :task = ANY(j.analyses) AND j.models ->> :task = :against AND r.outcome = 'done'
        AND ('x' || encode(substr(sha256(r.sha256), 1, 4), 'hex'))::bit(32)::bigint < :threshold
        AND NOT EXISTS (SELECT 1 FROM reruns x WHERE x.job_id = j.id)
        AND NOT EXISTS (SELECT 1 FROM shadow_pictures p
          WHERE p.run_id = :run AND p.account_id = r.account_id AND p.sha256 = r.sha256)
      ORDER BY r.account_id, r.sha256, c.finished_at, c.id, r.seq) AS found
    ORDER BY finished_at, chunk, seq LIMIT :limit
    """
)
_MOVE_ON = text(
    """
    UPDATE shadow_runs SET owner = NULL, lease_until = NULL, attempts = 0, code = NULL, detail = NULL,
      worked_at = now(), not_before = now() + make_interval(secs => :delay_s), seen_at = :at, seen_chunk = :chunk,
      compared = compared + :compared, failed = failed + :failed, agreed = CAST(:agreed AS jsonb),
      active_s = active_s + :active_s, candidate_s = candidate_s + :candidate_s
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
_ADD = text(
    """
    INSERT INTO shadow_pictures (run_id, account_id, sha256, job_id, seq, active, candidate, side, code)
    SELECT :run, account_id, decode(sha256, 'hex'), job_id, seq, active, candidate, side, code
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(account_id bigint, sha256 text, job_id uuid, seq integer,
      active real[], candidate real[], side text, code text)
    WHERE EXISTS (SELECT FROM images g WHERE g.account_id = r.account_id AND g.sha256 = decode(r.sha256, 'hex'))
    """
)
_RECORDED = text(
    """
    SELECT account_id, sha256, job_id, seq, active, candidate, side, code FROM shadow_pictures
    WHERE run_id = :run AND (account_id, sha256) > (:account, :sha256) ORDER BY account_id, sha256 LIMIT :limit
    """
)
