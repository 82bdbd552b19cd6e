"""Shadow runs: a candidate scores a sample of live pictures beside the active model, and nothing that anybody reads
changes. Which pictures, and what is recorded of them: `db.shadow_sample`.

    nothing → running     `start`
    running → finished    `settle`, by any maintenance process: its pictures or days are over, or one of the two models
                          is not what it was (`reason`)
    running → stopped     `stop`, its operator
    running → failed      its model did not load three times in a row (`not_loaded`), or three owners in a row died
                          (`settle`); `code` says why

One process at a time works on a run: it leases the run (owner, fence), and all that it writes is by compare-and-set on
them. If it dies, the lease runs out and the next one goes on. Every time is the database's `now()`.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, locks, registry
from db.errors import BadShadow, Conflict, LeaseLost, NotFound
from db.ids import uuid7
from db.learning_tables import ShadowRun
from db.session import changed

MAX_ATTEMPTS: Final = 3
"""Claims in a row that recorded nothing, because the model did not load or the process died."""


SETTLE_S: Final = 5.0
"""How long a finished chunk is left alone: a transaction that began before it may still commit, and its chunk would be
passed over. One that takes longer is missed, which a sample can bear."""


@dataclass(frozen=True)
class Limits:
    """The sample, and where a run ends: after so many pictures or days, whichever comes first.

    `share` of the pictures in 0…1, chosen by their SHA-256.
    """

    share: float
    pictures: int | None = None
    days: float | None = None

    def check(self) -> None:
        """Raises BadShadow."""
        if not 0 < self.share <= 1:
            raise BadShadow(f"share: the part of the pictures lies above 0 and up to 1, not {self.share:g}.")
        if self.pictures is None and self.days is None:
            raise BadShadow("pictures, days: a shadow run needs an end.")
        if self.pictures is not None and not 0 < self.pictures < 2**31:
            raise BadShadow(f"pictures: a number above 0 is needed, not {self.pictures}.")
        if self.days is not None and not 0 < self.days <= 3650:
            raise BadShadow(f"days: a number above 0 and up to 3650 is needed, not {self.days:g}.")


def start(session: Session, ref: str, limits: Limits, *, actor: str = "cli") -> ShadowRun:
    """nothing → running: the candidate is compared with the version that is active for its task now.

    Raises NotFound; BadShadow; Conflict when it is active itself or retired, nothing is active, or it has a run.
    """
    limits.check()
    model = registry.by_ref(session, ref)
    locks.lock(session, "shadow", ref)
    settle(session)
    against = registry.active(session, model.task)
    if model.state != "candidate":
        raise Conflict(f"{ref} is {model.state}: only a candidate is compared with the active version.")
    if against is None:
        raise Conflict(f"No model is active for {model.task}: there is nothing to compare {ref} with.")
    if running(session, ref) is not None:
        raise Conflict(f"{ref} has a shadow run already. To end it: tagmill shadow stop {ref}")
    run_id = uuid7()
    parameters = {"id": run_id, "task": model.task, "model": ref, "against": against.ref, **vars(limits)}
    session.execute(_START, parameters)
    audit.record(session, None, actor, "shadow.start", ref, against=against.ref, run=str(run_id), share=limits.share)
    return session.get_one(ShadowRun, run_id)


def stop(session: Session, ref: str, *, actor: str = "cli") -> ShadowRun:
    """running → stopped; what was compared stays. Raises NotFound when the model has no running run."""
    run = running(session, ref)
    if run is None or session.execute(_STOP, {"id": run.id}).first() is None:
        raise NotFound(f"No shadow run of {ref} is running.")
    audit.record(session, None, actor, "shadow.stop", ref, run=str(run.id))
    session.refresh(run)
    return run


def settle(session: Session) -> int:
    """running → finished or failed for every run that has come to its end; how many."""
    return changed(session.execute(_FINISH)) + changed(session.execute(_GIVE_UP, {"most": MAX_ATTEMPTS}))


def due(session: Session, settle_s: float = SETTLE_S) -> bool:
    """Whether a run waits for a process: chunks were finished that it has not seen, and the line has no ready chunk
    that a worker could take instead."""
    return bool(session.scalar(_DUE, {"settle_s": settle_s})) and not line_waits(session)


def line_waits(session: Session) -> bool:
    """Whether a chunk of a job is ready for a worker."""
    return bool(session.scalar(_LINE_WAITS))


def claim(session: Session, owner: UUID, lease_s: float) -> ShadowRun | None:
    """Lease the running run that was worked on longest ago, with a new fence; None when none is free."""
    settle(session)
    found = session.scalar(_CLAIM, {"owner": owner, "lease_s": lease_s})
    return None if found is None else session.get_one(ShadowRun, found, populate_existing=True)


def beat(session: Session, run: ShadowRun, lease_s: float) -> bool:
    """Renew the lease; False when the run is no longer ours, or has ended: stop, write nothing."""
    return session.execute(_BEAT, {**ours(run), "lease_s": lease_s}).first() is not None


def release(session: Session, run: ShadowRun, delay_s: float = 0.0) -> bool:
    """Hand the run back with its attempt; nobody takes it up for `delay_s`."""
    return session.execute(_RELEASE, {**ours(run), "delay_s": delay_s}).first() is not None


def not_loaded(session: Session, run: ShadowRun, code: str, detail: str, delay_s: float) -> None:
    """Note that a model does not load, and try again after `delay_s`; the third time in a row running → failed.

    Raises LeaseLost (roll back).
    """
    parameters = {**ours(run), "code": code, "detail": detail[:2000], "delay_s": delay_s, "most": MAX_ATTEMPTS}
    if session.execute(_NOT_LOADED, parameters).first() is None:
        raise LeaseLost(f"The shadow run {run.id} is no longer leased with fence {run.fence}.")


def running(session: Session, ref: str) -> ShadowRun | None:
    """The running run of a model."""
    return session.scalar(select(ShadowRun).where(ShadowRun.model == ref, ShadowRun.state == "running"))


def latest(session: Session, ref: str) -> ShadowRun | None:
    """The newest run of a model."""
    return session.scalar(select(ShadowRun).where(ShadowRun.model == ref).order_by(ShadowRun.id.desc()).limit(1))


def newest(session: Session, limit: int = 20) -> list[ShadowRun]:
    """The newest runs first."""
    return list(session.scalars(select(ShadowRun).order_by(ShadowRun.id.desc()).limit(limit)))


def ours(run: ShadowRun) -> dict[str, Any]:
    """The parameters of a compare-and-set on the lease as it was claimed."""
    return {"id": run.id, "owner": run.owner, "fence": run.fence}


_START = text(
    """
    INSERT INTO shadow_runs (id, task, model, against, share, pictures, until)
    VALUES (:id, :task, :model, :against, :share, :pictures, now() + make_interval(secs => 86400 * :days))
    """
)
_STOP = text(
    """
    UPDATE shadow_runs SET state = 'stopped', ended_at = now(), owner = NULL, lease_until = NULL
    WHERE id = :id AND state = 'running' RETURNING id
    """
)
_FINISH = text(
    """
    WITH judged AS (
      SELECT s.id, CASE
        WHEN m.id IS NULL THEN 'model_missing'
        WHEN m.state = 'active' THEN 'model_activated'
        WHEN m.state = 'retired' THEN 'model_retired'
        WHEN b.state IS DISTINCT FROM 'active' THEN 'active_replaced'
        WHEN s.compared + s.failed >= s.pictures THEN 'pictures_reached'
        WHEN s.until <= now() THEN 'days_over' END AS reason
      FROM shadow_runs s
      LEFT JOIN model_versions m ON m.name || '@' || m.version = s.model
      LEFT JOIN model_versions b ON b.name || '@' || b.version = s.against
      WHERE s.state = 'running')
    UPDATE shadow_runs s SET state = 'finished', reason = judged.reason, ended_at = now(), owner = NULL,
      lease_until = NULL
    FROM judged WHERE s.id = judged.id AND judged.reason IS NOT NULL AND s.state = 'running'
    """
)
_GIVE_UP = text(
    """
    UPDATE shadow_runs SET state = 'failed', code = 'worker_died', ended_at = now(), owner = NULL, lease_until = NULL,
      detail = attempts || ' processes in a row died while they scored with it'
    WHERE state = 'running' AND lease_until < now() AND attempts >= :most
    """
)
_LINE_WAITS = text(
    """
    SELECT EXISTS (SELECT 1 FROM chunks c JOIN jobs j ON j.id = c.job_id
      WHERE c.stage = 'infer' AND c.state = 'ready' AND c.not_before <= now() AND j.state IN ('accepted', 'running'))
    """
)
_DUE = text(
    """
    SELECT EXISTS (SELECT 1 FROM shadow_runs s
      WHERE s.state = 'running' AND s.not_before <= now() AND (s.owner IS NULL OR s.lease_until < now())
        AND EXISTS (SELECT 1 FROM chunks c WHERE c.stage = 'infer' AND c.state = 'done'
          AND (c.finished_at, c.id) > (s.seen_at, s.seen_chunk)
          AND c.finished_at <= now() - make_interval(secs => :settle_s)))
    """
)
_CLAIM = text(
    """
    UPDATE shadow_runs SET owner = :owner, fence = fence + 1, attempts = attempts + 1,
      lease_until = now() + make_interval(secs => :lease_s)
    WHERE id = (
      SELECT id FROM shadow_runs
      WHERE state = 'running' AND not_before <= now() AND (owner IS NULL OR lease_until < now())
      ORDER BY worked_at NULLS FIRST, id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id
    """
)
_BEAT = text(
    """
    UPDATE shadow_runs SET lease_until = now() + make_interval(secs => :lease_s)
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
_RELEASE = text(
    """
    UPDATE shadow_runs SET owner = NULL, lease_until = NULL, attempts = greatest(attempts - 1, 0),
      not_before = now() + make_interval(secs => :delay_s)
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
_NOT_LOADED = text(
    """
    UPDATE shadow_runs SET owner = NULL, lease_until = NULL, code = :code, detail = :detail, worked_at = now(),
      not_before = now() + make_interval(secs => :delay_s),
      state = CASE WHEN attempts >= :most THEN 'failed' ELSE state END,
      ended_at = CASE WHEN attempts >= :most THEN now() END
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
