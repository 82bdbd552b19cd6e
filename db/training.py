"""Training runs: leased by a trainer as chunks are by workers, so that a dead trainer is noticed and its run taken up.

    queued  → running              `claim`: the oldest, or the one named; also a running one whose lease ran out
    running → finished, failed     `finish`, `fail`: by compare-and-set on (owner, fence)
    running → queued               `release`, at a graceful stop: the attempt is given back
    running → queued, or failed    `give_back`, after a fault that may pass: the attempt counts
    queued, running → cancelled    `cancel`; the trainer hears it at its next `beat`

Every time is the database's `now()`. A run that was claimed MAX_ATTEMPTS times without reporting progress is failed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, locks
from db.errors import Conflict, LeaseLost, NotFound
from db.ids import uuid7
from db.tables import Dataset, TrainingRun

MAX_ATTEMPTS: Final = 3


def enqueue(
    session: Session,
    dataset_id: int,
    name: str,
    version: str,
    config: Mapping[str, Any],
    *,
    init: str | None = None,
    actor: str = "cli",
    account_id: int | None = None,
) -> TrainingRun:
    """nothing → queued: a run that will make the model name@version. Conflict if a run or a model has that name.

    `actor` and `account_id` are for the audit log. Who means to carry the run out itself claims it in the same
    transaction: else a trainer that waits may be quicker.
    """
    locks.lock(session, "training", name)
    taken = session.scalar(
        text(
            "SELECT EXISTS (SELECT 1 FROM training_runs WHERE name = :name AND version = :version)"
            " OR EXISTS (SELECT 1 FROM model_versions WHERE name = :name AND version = :version)"
        ),
        {"name": name, "version": version},
    )
    if taken:
        raise Conflict(f"{name}@{version} exists already, or a run makes it: choose another version.")
    run_id = uuid7()
    session.execute(
        text(
            "INSERT INTO training_runs (id, dataset_id, name, version, config, init)"
            " VALUES (:id, :dataset, :name, :version, CAST(:config AS jsonb), :init)"
        ),
        {
            "id": run_id,
            "dataset": dataset_id,
            "name": name,
            "version": version,
            "config": json.dumps(dict(config)),
            "init": init,
        },
    )
    audit.record(session, account_id, actor, "training.enqueue", str(run_id), model=f"{name}@{version}")
    return session.get_one(TrainingRun, run_id)


def next_version(session: Session, name: str) -> str:
    """The lowest whole number above every numbered version of the name, of runs and of models; until the transaction
    ends, nobody else is told one."""
    locks.lock(session, "training", name)
    versions = session.scalars(
        text(
            "SELECT version FROM training_runs WHERE name = :name UNION SELECT version FROM model_versions"
            " WHERE name = :name"
        ),
        {"name": name},
    )
    return str(1 + max((int(version) for version in versions if version.isdecimal()), default=0))


def claim(session: Session, owner: UUID, lease_s: float, run_id: UUID | None = None) -> TrainingRun | None:
    """queued, or running with a lease that ran out → running with a new fence; None when nothing waits.

    A run whose trainers died MAX_ATTEMPTS times without progress → failed with the code trainer_died.
    """
    session.execute(_GIVE_UP, {"most": MAX_ATTEMPTS})
    found = session.scalar(_CLAIM, {"owner": owner, "lease_s": lease_s, "id": run_id})
    return None if found is None else session.get_one(TrainingRun, found, populate_existing=True)


def waiting(session: Session, fresh_s: float = 0.0) -> int:
    """How many runs a trainer could claim: queued ones, and those whose trainer died.

    Without those that were queued within `fresh_s`: the command that queued one may be about to carry it out.
    """
    return int(session.execute(_WAITING, {"fresh_s": fresh_s}).scalar_one())


def beat(
    session: Session,
    run: TrainingRun,
    lease_s: float,
    progress: Mapping[str, Any] | None = None,
    live: Mapping[str, Any] | None = None,
) -> bool:
    """Renew the lease; False when the run is no longer ours (taken over, or cancelled): stop, write nothing.

    Reported `progress` starts the count of attempts anew; `live` is only shown.
    """
    parameters = {
        **_ours(run),
        "lease_s": lease_s,
        "progress": None if progress is None else json.dumps(dict(progress)),
        "live": None if live is None else json.dumps(dict(live)),
    }
    return session.execute(_BEAT, parameters).first() is not None


def release(session: Session, run: TrainingRun) -> bool:
    """running → queued by its owner."""
    return session.execute(_RELEASE, _ours(run)).first() is not None


def give_back(session: Session, run: TrainingRun, code: str, detail: str) -> str:
    """running → queued for the next trainer, or, after MAX_ATTEMPTS without progress, → failed with this code.

    Returns the new state. Raises LeaseLost.
    """
    # Counted in the database: progress since the claim has started the count anew.
    if session.scalar(text("SELECT attempts FROM training_runs WHERE id = :id"), {"id": run.id}) >= MAX_ATTEMPTS:
        fail(session, run, code, detail)
        return "failed"
    if session.execute(_GIVE_BACK, _ours(run)).first() is None:
        raise LeaseLost(f"The run {run.id} is no longer leased with fence {run.fence}.")
    return "queued"


def finish(session: Session, run: TrainingRun) -> None:
    """running → finished, in the transaction that registers the model. Raises LeaseLost (roll back)."""
    _end(session, run, "finished", None, None)


def fail(session: Session, run: TrainingRun, code: str, detail: str) -> None:
    """running → failed: a fault that trying again would repeat. Raises LeaseLost."""
    _end(session, run, "failed", code, detail[:2000])


def cancel(session: Session, run_id: UUID, *, actor: str = "cli", account_id: int | None = None) -> TrainingRun:
    """queued or running → cancelled; a cancelled one stays it. Conflict for one that has ended."""
    run = get(session, run_id)
    if run.state in ("finished", "failed"):
        raise Conflict(f"The run is {run.state}.")
    cancelled = session.scalar(
        text(
            "UPDATE training_runs SET state = 'cancelled', owner = NULL, lease_until = NULL, finished_at = now()"
            " WHERE id = :id AND state IN ('queued', 'running') RETURNING id"
        ),
        {"id": run_id},
    )
    session.refresh(run)
    if cancelled is not None:
        audit.record(session, account_id, actor, "training.cancel", str(run_id), model=f"{run.name}@{run.version}")
    elif run.state != "cancelled":  # it ended while we looked
        raise Conflict(f"The run is {run.state}.")
    return run


def get(session: Session, run_id: UUID) -> TrainingRun:
    """One run; NotFound."""
    run = session.scalar(select(TrainingRun).where(TrainingRun.id == run_id))
    if run is None:
        raise NotFound("There is no such training run.")
    return run


def by_name(session: Session, name: str, version: str) -> TrainingRun:
    """The run that makes or made name@version; NotFound."""
    found = session.scalar(select(TrainingRun).where(TrainingRun.name == name, TrainingRun.version == version))
    if found is None:
        raise NotFound(f"No run makes {name}@{version}.")
    return found


def page(session: Session, *, state: str | None, before: UUID | None, limit: int) -> list[TrainingRun]:
    """Runs, newest first, of one state if one is given, behind the run `before`."""
    query = select(TrainingRun).order_by(TrainingRun.id.desc()).limit(limit)
    if state is not None:
        query = query.where(TrainingRun.state == state)
    if before is not None:
        query = query.where(TrainingRun.id < before)
    return list(session.scalars(query))


def dataset_refs(session: Session, runs: Sequence[TrainingRun]) -> dict[int, str]:
    """The datasets of these runs by id, as name@version."""
    found = session.scalars(select(Dataset).where(Dataset.id.in_({run.dataset_id for run in runs})))
    return {dataset.id: dataset.ref for dataset in found}


def newest(session: Session, limit: int = 20) -> list[TrainingRun]:
    """The newest runs first."""
    return list(session.scalars(select(TrainingRun).order_by(TrainingRun.id.desc()).limit(limit)))


def _end(session: Session, run: TrainingRun, state: str, code: str | None, detail: str | None) -> None:
    parameters = {**_ours(run), "state": state, "code": code, "detail": detail}
    if session.execute(_END, parameters).first() is None:
        raise LeaseLost(f"The run {run.id} is no longer leased with fence {run.fence}.")


def _ours(run: TrainingRun) -> dict[str, Any]:
    return {"id": run.id, "owner": run.owner, "fence": run.fence}


_GIVE_UP = text(
    """
    UPDATE training_runs SET state = 'failed', code = 'trainer_died', finished_at = now(), owner = NULL,
      lease_until = NULL, detail = attempts || ' trainers in a row died without progress'
    WHERE state = 'running' AND lease_until < now() AND attempts >= :most
    """
)
_CLAIM = text(
    """
    UPDATE training_runs SET state = 'running', owner = :owner, fence = fence + 1, attempts = attempts + 1,
      lease_until = now() + make_interval(secs => :lease_s), started_at = coalesce(started_at, now())
    WHERE id = (
      SELECT id FROM training_runs
      WHERE (state = 'queued' OR (state = 'running' AND lease_until < now()))
        AND (CAST(:id AS uuid) IS NULL OR id = :id)
      ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id
    """
)
_WAITING = text(
    """
    SELECT count(*) FROM training_runs
    WHERE (state = 'queued' AND created_at <= now() - make_interval(secs => :fresh_s))
      OR (state = 'running' AND lease_until < now())
    """
)
_BEAT = text(
    """
    UPDATE training_runs SET lease_until = now() + make_interval(secs => :lease_s),
      progress = coalesce(CAST(:progress AS jsonb), progress), live = coalesce(CAST(:live AS jsonb), live),
      attempts = CASE WHEN CAST(:progress AS jsonb) IS NULL THEN attempts ELSE 1 END
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
_RELEASE = text(
    """
    UPDATE training_runs SET state = 'queued', owner = NULL, lease_until = NULL, attempts = greatest(attempts - 1, 0)
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
_GIVE_BACK = text(
    """
    UPDATE training_runs SET state = 'queued', owner = NULL, lease_until = NULL
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
_END = text(
    """
    UPDATE training_runs SET state = :state, code = :code, detail = :detail, finished_at = now(), owner = NULL,
      lease_until = NULL
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
