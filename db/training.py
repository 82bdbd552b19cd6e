"""Training runs: leased by a trainer as chunks are by workers, so that a dead trainer is noticed and its run taken up.

    queued  → running              `claim`: the oldest, or the one named; also a running one whose lease ran out
    running → finished, failed     `finish`, `fail`: by compare-and-set on (owner, fence)
    running → queued               `release`, at a graceful stop: the attempt is given back
    queued, running → cancelled    `cancel`; the trainer hears it at its next `beat`

Every time is the database's `now()`. A run that was claimed MAX_ATTEMPTS times without reporting progress is failed.
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit
from db.errors import Conflict, LeaseLost, NotFound
from db.ids import uuid7
from db.tables import TrainingRun

MAX_ATTEMPTS: Final = 3


def enqueue(
    session: Session, dataset_id: int, name: str, version: str, config: Mapping[str, Any], *, init: str | None = None
) -> TrainingRun:
    """nothing → queued: a run that will make the model name@version. Conflict if a run or a model has that name."""
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
    audit.record(session, None, "cli", "training.enqueue", str(run_id), model=f"{name}@{version}")
    return session.get_one(TrainingRun, run_id)


def next_version(session: Session, name: str) -> str:
    """The lowest whole number above every numbered version of the name, of runs and of models."""
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


def beat(session: Session, run: TrainingRun, lease_s: float, progress: Mapping[str, Any] | None = None) -> bool:
    """Renew the lease; False when the run is no longer ours (taken over, or cancelled): stop, write nothing.

    Reported `progress` starts the count of attempts anew.
    """
    parameters = {
        **_ours(run),
        "lease_s": lease_s,
        "progress": None if progress is None else json.dumps(dict(progress)),
    }
    return session.execute(_BEAT, parameters).first() is not None


def release(session: Session, run: TrainingRun) -> bool:
    """running → queued by its owner."""
    return session.execute(_RELEASE, _ours(run)).first() is not None


def finish(session: Session, run: TrainingRun) -> None:
    """running → finished, in the transaction that registers the model. Raises LeaseLost (roll back)."""
    _end(session, run, "finished", None, None)


def fail(session: Session, run: TrainingRun, code: str, detail: str) -> None:
    """running → failed: a fault that trying again would repeat. Raises LeaseLost."""
    _end(session, run, "failed", code, detail[:2000])


def cancel(session: Session, run_id: UUID) -> TrainingRun:
    """queued or running → cancelled; a cancelled one stays it. Conflict for one that has ended."""
    run = get(session, run_id)
    if run.state in ("finished", "failed"):
        raise Conflict(f"The run is {run.state}.")
    session.execute(
        text(
            "UPDATE training_runs SET state = 'cancelled', owner = NULL, lease_until = NULL, finished_at = now()"
            " WHERE id = :id AND state IN ('queued', 'running')"
        ),
        {"id": run_id},
    )
    session.refresh(run)
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
_BEAT = text(
    """
    UPDATE training_runs SET lease_until = now() + make_interval(secs => :lease_s),
      progress = coalesce(CAST(:progress AS jsonb), progress),
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
_END = text(
    """
    UPDATE training_runs SET state = :state, code = :code, detail = :detail, finished_at = now(), owner = NULL,
      lease_until = NULL
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
