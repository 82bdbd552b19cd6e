"""Publishes a rerun's staged results over the ones they stand for, drops them, or takes a publication back.

Each function moves one bounded batch in its caller's transaction and says whether more is left. The rerun's row is
locked for a batch and `position` goes with it: two callers take turns, and one that dies is continued by the next.

    staged     → publishing   → published     `publish`
    published, publishing → rolling_back → rolled_back   `roll_back`
    staged     → dropping     → dropped       `drop`

A result that is gone, or that is no longer of the same bytes, is left alone. A rollback restores what this very
rerun published and nothing that another one has published since. What either does to a verdict is a row in `decisions`
too, so that every verdict's history is there and can be verified; what a person decided stays over it.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, bank_changes, evidence, jobs, moderation_state, registry, reruns, review_changes
from db.errors import Conflict, NotFound
from db.ids import UUID7, uuid7
from db.tables import Job, Rerun


@dataclass(frozen=True)
class Moved:
    """One batch. `items`: how far the rerun is, in items looked at; `changed`: results written in this batch."""

    items: int
    changed: int
    more: bool


def publish(session: Session, account_id: int, rerun_id: UUID, *, limit: int = 500, actor: str = "cli") -> Moved:
    """Replace the next results by the staged ones and keep what they were. Conflict unless the rerun has ended and its
    model is the active one of its task: a candidate's opinion is for the diff, not for the catalog."""
    rerun = _begin(session, account_id, rerun_id, ("staged", "publishing"), "publishing", actor, "rerun.publish")
    job = reruns.require_ended(session, rerun)
    if job.state != "finished":
        raise Conflict("The rerun was cancelled: drop it.")
    model = registry.active(session, rerun.task)
    if model is None or model.ref != rerun.model:
        raise Conflict(f"{rerun.model} is not the active model for {rerun.task}: activate it before publishing.")
    return _move(session, rerun, job, _PUBLISH[rerun.task], limit, actor, "published", "published")


def roll_back(session: Session, account_id: int, rerun_id: UUID, *, limit: int = 500, actor: str = "cli") -> Moved:
    """Put back what publishing replaced, in the next results that still show this rerun."""
    states = ("published", "publishing", "rolling_back")
    rerun = _begin(session, account_id, rerun_id, states, "rolling_back", actor, "rerun.rollback")
    job = session.get_one(Job, rerun.job_id)
    return _move(session, rerun, job, _ROLL_BACK[rerun.task], limit, actor, "rolled_back", "restored")


def drop(session: Session, account_id: int, rerun_id: UUID, *, limit: int = 5000, actor: str = "cli") -> Moved:
    """Give up a rerun that was never published: its job is cancelled if it still works, and what it stood for is
    forgotten. Its results stay those of an ordinary job."""
    rerun = _begin(session, account_id, rerun_id, ("staged", "dropping"), "dropping", actor, "rerun.drop")
    job = session.get_one(Job, rerun.job_id)
    if job.state in ("accepted", "running"):
        jobs.cancel(session, account_id, job.id, actor=actor)
    return _move(session, rerun, job, _DROP, limit, actor, "dropped", None)


def _begin(
    session: Session, account_id: int, rerun_id: UUID, states: tuple[str, ...], moving: str, actor: str, action: str
) -> Rerun:
    """Lock the rerun and enter the state of the move, at its first item; Conflict from any other state."""
    rerun = session.scalar(select(Rerun).where(Rerun.account_id == account_id, Rerun.id == rerun_id).with_for_update())
    if rerun is None:
        raise NotFound("There is no such rerun.")
    if rerun.state not in states:
        raise Conflict(f"The rerun is {rerun.state}; this needs one that is {states[0]}.")
    if rerun.state != moving:
        rerun.state, rerun.position = moving, -1
        audit.record(session, account_id, actor, action, str(rerun.id), model=rerun.model, items=rerun.total)
    return rerun


def _move(
    session: Session, rerun: Rerun, job: Job, statement: Any, limit: int, actor: str, end: str, counter: str | None
) -> Moved:
    batch = uuid7()
    parameters = {
        "rerun": rerun.id,
        "rerun_text": str(rerun.id),
        "task": rerun.task,
        "model": rerun.model,
        "job": job.id,
        "bucket": job.bucket,
        "after": rerun.position,
        "limit": limit,
        "batch": batch,
        "actor": actor,
    }
    last, changed = session.execute(statement, parameters).one()
    evidence.cover_decisions(session, rerun.account_id, batch)
    review_changes.follow(session, rerun.account_id, batch)
    if rerun.task == "moderation" and last is not None:
        # What is put in place was decided before; a bank may know the picture since, or no longer.
        bank_changes.recheck_moved(session, rerun.id, rerun.position, last)
    touched = session.scalars(_JOBS, {"account_id": rerun.account_id, "batch": batch}).all()
    moderation_state.refresh(session, rerun.account_id, touched)
    if counter is not None:
        setattr(rerun, counter, getattr(rerun, counter) + changed)
    if last is not None:
        rerun.position = last
    more = last is not None and last < rerun.total - 1
    if not more:
        session.flush()
        session.execute(_END, {"rerun": rerun.id, "state": end})
    return Moved(rerun.position + 1, changed, more)


_PART = """
    WITH part AS (
      SELECT seq, bucket, job_id, source_seq, before FROM rerun_items
      WHERE rerun_id = :rerun AND seq > :after ORDER BY seq LIMIT :limit)
"""
# What became of a verdict, for its history; `now` has it from `value` to `becomes`.
_TOLD = f"""
    , told AS (
      INSERT INTO decisions (id, account_id, sha256, context, job_id, seq, kind, verdict, code, text, actor, policy,
        rule, before, after, batch)
      SELECT {UUID7}, j.account_id, now.sha256, j.context, now.job_id, now.seq, 'rerun', now.becomes ->> 'verdict',
        now.becomes -> 'reasons' -> 0 ->> 'code', now.becomes -> 'reasons' -> 0 ->> 'text', :actor,
        now.becomes ->> 'policy', now.becomes ->> 'rule', now.value, now.becomes, :batch
      FROM now JOIN jobs j ON j.id = now.job_id
      WHERE now.value IS NOT NULL AND now.becomes ->> 'verdict' IN ('approve', 'review', 'reject'))
"""
# `now` locks the published rows in one order for all callers, and holds what they were before the update.
_PUBLISH = {
    column: text(
        f"""
        {_PART}, now AS (
          SELECT p.seq AS n, r.bucket, r.job_id, r.seq, r.sha256, s.{column} AS becomes, r.{column} AS value,
            r.published
          FROM part p
          JOIN results s ON s.bucket = :bucket AND s.job_id = :job AND s.seq = p.seq AND s.outcome = 'done'
          JOIN results r ON r.bucket = p.bucket AND r.job_id = p.job_id AND r.seq = p.source_seq
            AND r.outcome = 'done' AND r.sha256 = s.sha256
          ORDER BY p.seq FOR UPDATE OF r
        ), kept AS (
          UPDATE rerun_items k
          SET before = jsonb_build_object('value', now.value, 'published', now.published -> :task)
          FROM now WHERE k.rerun_id = :rerun AND k.seq = now.n
        ), written AS (
          UPDATE results r SET {column} = now.becomes, published = coalesce(now.published, '{{}}') ||
            jsonb_build_object(CAST(:task AS text), jsonb_build_object(
              'model', CAST(:model AS text), 'rerun', CAST(:rerun_text AS text)))
          FROM now WHERE r.bucket = now.bucket AND r.job_id = now.job_id AND r.seq = now.seq RETURNING 1
        ) {told}
        SELECT (SELECT max(seq) FROM part), (SELECT count(*) FROM written)
        """
    )
    for column, told in (("tags", ""), ("moderation", _TOLD))
}
_ROLL_BACK = {
    column: text(
        f"""
        {_PART}, now AS (
          SELECT r.bucket, r.job_id, r.seq, r.sha256, nullif(p.before -> 'value', 'null') AS becomes,
            r.{column} AS value, p.before
          FROM part p
          JOIN results r ON r.bucket = p.bucket AND r.job_id = p.job_id AND r.seq = p.source_seq
          WHERE p.before IS NOT NULL AND r.published -> :task ->> 'rerun' = :rerun_text
          ORDER BY p.seq FOR UPDATE OF r
        ), written AS (
          UPDATE results r SET {column} = now.becomes,
            published = nullif(CASE WHEN coalesce(now.before -> 'published', 'null') = 'null'
              THEN r.published - CAST(:task AS text)
              ELSE jsonb_set(r.published, ARRAY[CAST(:task AS text)], now.before -> 'published') END, '{{}}')
          FROM now WHERE r.bucket = now.bucket AND r.job_id = now.job_id AND r.seq = now.seq RETURNING 1
        ) {told}
        SELECT (SELECT max(seq) FROM part), (SELECT count(*) FROM written)
        """
    )
    for column, told in (("tags", ""), ("moderation", _TOLD))
}
_DROP = text(
    f"""
    {_PART}, written AS (
      DELETE FROM rerun_items k USING part p WHERE k.rerun_id = :rerun AND k.seq = p.seq RETURNING 1)
    SELECT (SELECT max(seq) FROM part), (SELECT count(*) FROM written)
    """
)
_JOBS = text("SELECT DISTINCT job_id FROM decisions WHERE account_id = :account_id AND batch = :batch")
_END = text(
    """
    UPDATE reruns SET state = :state,
      published_at = CASE WHEN CAST(:state AS text) = 'published' THEN now() ELSE published_at END,
      ended_at = CASE WHEN CAST(:state AS text) = 'published' THEN NULL ELSE now() END
    WHERE id = :rerun
    """
)
