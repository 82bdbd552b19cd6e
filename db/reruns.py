"""Reruns: published results analysed again by another model, in a job of their own, without touching what is published.

    plan     which results, and how many; nothing is written
    start    copies the chosen items into a new bulk job whose working copies are there already: its chunks are of the
             infer stage from the start, so workers, leases, cancel and retry are those of any job
    → its results are the staged ones: `rerun_diff` compares them, `publishing` publishes or drops them

A rerun's items name no product, so the catalog does not see them before they are published.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, registry, rerun_policies
from db.errors import BadSelection, Conflict, EmptyRerun, NoOpenBucket, NotFound
from db.ids import uuid7
from db.session import long_statements
from db.tables import Job, Rerun

_SLOW_S = 600
"""Statements over all chosen items may take longer than a request's."""


@dataclass(frozen=True)
class Selection:
    """Which results to analyse again; all conditions must hold. Without any: those that the model has not made.

    `all`: also those that this very model made. `older_than`: made by a version registered before this one
    (name@version). `label` with `low`…`high`: its score lies in the band; without a label, the best tag's does.
    `product`: a product's id, `*` stands for anything. `reason`: a verdict's reason has this code, whoever made it.
    """

    all: bool = False
    older_than: str | None = None
    label: str | None = None
    low: float = 0.0
    high: float = 1.0
    verdict: str | None = None
    product: str | None = None
    job: UUID | None = None
    reason: str | None = None

    def check(self, task: str) -> None:
        """Raises BadSelection for conditions that contradict each other or the task."""
        if not 0 <= self.low <= self.high <= 1:
            raise BadSelection(f"A score band lies in 0…1, low before high; not {self.low:g}…{self.high:g}.")
        banded = (self.low, self.high) != (0.0, 1.0)
        if task == "moderation" and banded != (self.label is not None):
            raise BadSelection("For moderation a score band and the label it is of go together.")
        if task == "tags" and (self.verdict or self.reason) is not None:
            raise BadSelection("A verdict or its reason chooses results of moderation, not of tags.")

    def document(self) -> dict[str, Any]:
        """What is set, JSON-ready."""
        plain = {key: str(value) if isinstance(value, UUID) else value for key, value in asdict(self).items()}
        return {key: value for key, value in plain.items() if value != getattr(Selection(), key)}


@dataclass(frozen=True)
class Plan:
    """What a rerun would do. `scored`: pictures that the model has scored before, which need no network.

    `rate`: pictures a second that recent jobs went at; None when there were none. It includes their fetching, so the
    estimate errs on the long side.
    """

    task: str
    model: str
    items: int
    scored: int
    by_model: dict[str, int]
    rate: float | None

    @property
    def seconds(self) -> float | None:
        """Estimated time of the network's part."""
        return (self.items - self.scored) / self.rate if self.rate else None


def plan(session: Session, account_id: int, model_ref: str, selection: Selection) -> Plan:
    """Count what a rerun with this model would analyse. Raises NotFound, BadSelection."""
    parameters, task = _parameters(session, account_id, model_ref, selection)
    _slow(session)
    rows = session.execute(_COUNT, parameters).all()
    return Plan(
        task=task,
        model=model_ref,
        items=sum(row.items for row in rows),
        scored=sum(row.scored for row in rows),
        by_model={row.made_by or "none": row.items for row in rows},
        rate=session.scalar(_RATE),
    )


def start(
    session: Session,
    account_id: int,
    model_ref: str,
    selection: Selection,
    *,
    chunk_size: int = 512,
    actor: str = "cli",
) -> Rerun:
    """Stage a rerun: its row, its job (`accepted`, lane bulk) with items and ready infer chunks, in one transaction.

    The job pins this model, and the policies that decide now where the results are of. Raises NotFound, BadSelection,
    EmptyRerun.
    """
    parameters, task = _parameters(session, account_id, model_ref, selection)
    _slow(session)
    bucket = session.scalar(text("SELECT max(id) FROM buckets WHERE closed_at IS NULL"))
    if bucket is None:
        raise NoOpenBucket("No bucket is open; run `tagmill migrate` and the maintenance role.")
    rerun_id, job_id = uuid7(), uuid7()
    parameters |= {
        "rerun": rerun_id,
        "new_job": job_id,
        "bucket": bucket,
        "name": f"rerun of {task} with {model_ref}"[:200],
        "selection": json.dumps(selection.document()),
        "size": chunk_size,
    }
    # Chosen once: the statements below must all see the same rows in the same order.
    session.execute(_CHOOSE, parameters)
    total = int(session.execute(text("SELECT count(*) FROM chosen")).scalar_one())
    if total == 0:
        raise EmptyRerun("No published result matches: there is nothing to analyse again.")
    pins = rerun_policies.pins(session, account_id, task, model_ref)
    parameters |= {
        "total": total,
        "context": pins.context,
        "options": json.dumps({"rerun": str(rerun_id)} | ({"policies": pins.others} if pins.others else {})),
        "models": json.dumps(pins.models),
        "policy": json.dumps(pins.document),
    }
    for statement in (_ADD_JOB, _ADD_RERUN, _ADD_RERUN_ITEMS, _ADD_ITEMS, _ADD_INGESTS, _ADD_CHUNKS):
        session.execute(statement, parameters)
    session.execute(text("DROP TABLE chosen"))
    audit.record(session, account_id, actor, "rerun.start", str(rerun_id), model=model_ref, items=total)
    return session.get_one(Rerun, rerun_id)


def get(session: Session, account_id: int, rerun_id: UUID) -> Rerun:
    """One rerun of the account; NotFound for another account's too."""
    rerun = session.scalar(select(Rerun).where(Rerun.account_id == account_id, Rerun.id == rerun_id))
    if rerun is None:
        raise NotFound("There is no such rerun.")
    return rerun


def newest(session: Session, account_id: int, limit: int = 20) -> list[Rerun]:
    """The account's reruns, newest first."""
    query = select(Rerun).where(Rerun.account_id == account_id).order_by(Rerun.id.desc()).limit(limit)
    return list(session.scalars(query))


def require_ended(session: Session, rerun: Rerun) -> Job:
    """The rerun's job, which must have ended: a Conflict says how to go on."""
    job = session.get_one(Job, rerun.job_id)
    if job.settled_at is None:
        raise Conflict(f"The rerun still works; wait for it with: tagmill wait {job.id}")
    return job


def _parameters(session: Session, account_id: int, model_ref: str, selection: Selection) -> tuple[dict[str, Any], str]:
    model = registry.by_ref(session, model_ref)
    selection.check(model.task)
    pattern = None
    if selection.product is not None:
        plain = selection.product.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        pattern = plain.replace("*", "%")
    return {
        "account_id": account_id,
        "task": model.task,
        "model": model_ref,
        "all": selection.all or (selection.reason is not None and selection.older_than is None),
        "older": registry.by_ref(session, selection.older_than).id if selection.older_than else None,
        "label": selection.label,
        "low": selection.low,
        "high": selection.high,
        "banded": (selection.low, selection.high) != (0.0, 1.0),
        "verdict": selection.verdict,
        "product": pattern,
        "job": selection.job,
        "reasons": selection.reason and json.dumps({"reasons": [{"code": selection.reason}]}),
    }, model.task


def _slow(session: Session) -> None:
    long_statements(session, _SLOW_S)


def describe(selection: Mapping[str, Any]) -> str:
    """A stored selection in words."""
    return ", ".join(f"{key} {value}" for key, value in selection.items()) or "not by this model yet"


# Who made the analysed part of a result: the rerun that was published over it, else what the tag or verdict says, else
# (a picture without any tag) what its job pinned. Only jobs that have ended: nothing is published under a running one.
_MADE_BY = """coalesce(r.published -> :task ->> 'model',
        CASE :task WHEN 'tags' THEN r.tags -> 0 ->> 'model' ELSE r.moderation ->> 'model' END, j.models ->> :task)"""
_CHOSEN = f"""
    SELECT r.bucket, r.job_id, r.seq, r.sha256, {_MADE_BY} AS made_by
    FROM jobs j
    JOIN results r ON r.bucket = j.bucket AND r.job_id = j.id
    JOIN items i ON i.bucket = r.bucket AND i.job_id = r.job_id AND i.seq = r.seq
    LEFT JOIN model_versions v ON v.name || '@' || v.version = {_MADE_BY}
    WHERE j.account_id = :account_id AND j.settled_at IS NOT NULL AND :task = ANY(j.analyses)
      AND NOT EXISTS (SELECT 1 FROM reruns x WHERE x.job_id = j.id)
      AND r.outcome = 'done'
      AND EXISTS (SELECT 1 FROM images g WHERE g.account_id = j.account_id AND g.sha256 = r.sha256)
      AND (CAST(:job AS uuid) IS NULL OR j.id = :job)
      AND (CAST(:product AS text) IS NULL OR i.product_id LIKE :product)
      AND (:all OR (CAST(:older AS bigint) IS NULL AND {_MADE_BY} IS DISTINCT FROM :model)
        OR coalesce(v.id, 0) < CAST(:older AS bigint))
      AND (CAST(:verdict AS text) IS NULL OR r.moderation ->> 'verdict' = :verdict)
      AND (CAST(:reasons AS jsonb) IS NULL OR r.moderation @> CAST(:reasons AS jsonb))
      AND (:task = 'moderation' OR CAST(:label AS text) IS NULL OR EXISTS (
        SELECT 1 FROM jsonb_to_recordset(r.tags) AS t(label text, score float8)
        WHERE t.label = :label AND t.score BETWEEN :low AND :high))
      AND (:task = 'moderation' OR CAST(:label AS text) IS NOT NULL OR NOT :banded
        OR CAST(r.tags -> 0 ->> 'score' AS float8) BETWEEN :low AND :high)
      AND (:task = 'tags' OR CAST(:label AS text) IS NULL
        OR CAST(r.moderation -> 'scores' ->> :label AS float8) BETWEEN :low AND :high)
"""
_COUNT = text(
    f"""
    WITH chosen AS ({_CHOSEN})
    SELECT c.made_by, count(*) AS items, count(a.sha256) AS scored
    FROM chosen c LEFT JOIN analyses a ON a.account_id = :account_id AND a.sha256 = c.sha256 AND a.model = :model
    GROUP BY c.made_by ORDER BY count(*) DESC
    """
)
# Per job, from its second finished chunk on: the time of the first one is not known.
_RATE = text(
    """
    SELECT max(items / seconds) FROM (
      SELECT sum(c.done) - min(c.done) AS items,
        extract(epoch FROM max(c.finished_at) - min(c.finished_at))::float8 AS seconds
      FROM chunks c
      WHERE c.stage = 'infer' AND c.state = 'done' AND c.job_id IN (
        SELECT id FROM jobs WHERE settled_at IS NOT NULL ORDER BY settled_at DESC LIMIT 20)
      GROUP BY c.job_id HAVING count(*) > 1) AS recent
    WHERE seconds > 0
    """
)
_CHOOSE = text(
    f"""
    CREATE TEMPORARY TABLE chosen ON COMMIT DROP AS
    SELECT (row_number() OVER (ORDER BY bucket, job_id, seq) - 1)::integer AS n, bucket, job_id, seq, sha256
    FROM ({_CHOSEN}) AS found
    """
)
# `settled` says that everything is ingested: progress and retry then count as in a later round of any job.
_ADD_JOB = text(
    """
    INSERT INTO jobs (id, account_id, name, lane, analyses, options, context, bucket, total, models, policy, settled)
    VALUES (:new_job, :account_id, :name, 'bulk', ARRAY[CAST(:task AS text)], CAST(:options AS jsonb), :context,
      :bucket, :total, CAST(:models AS jsonb), CAST(:policy AS jsonb),
      jsonb_build_object('ingested', CAST(:total AS integer)))
    """
)
_ADD_RERUN = text(
    """
    INSERT INTO reruns (id, account_id, job_id, task, model, selection, total)
    VALUES (:rerun, :account_id, :new_job, :task, :model, CAST(:selection AS jsonb), :total)
    """
)
_ADD_RERUN_ITEMS = text(
    """
    INSERT INTO rerun_items (rerun_id, seq, account_id, bucket, job_id, source_seq)
    SELECT :rerun, n, :account_id, bucket, job_id, seq FROM chosen
    """
)
_ADD_ITEMS = text(
    """
    INSERT INTO items (bucket, job_id, seq, account_id, url, filename, raw_key, client_id, category)
    SELECT :bucket, :new_job, c.n, :account_id, i.url, i.filename, i.raw_key, i.client_id, i.category
    FROM chosen c JOIN items i ON i.bucket = c.bucket AND i.job_id = c.job_id AND i.seq = c.seq
    """
)
_ADD_INGESTS = text(
    """
    INSERT INTO ingests (bucket, job_id, seq, account_id, outcome, sha256)
    SELECT :bucket, :new_job, n, :account_id, 'done', sha256 FROM chosen
    """
)
_ADD_CHUNKS = text(
    """
    INSERT INTO chunks (account_id, job_id, bucket, stage, lo, hi, turn)
    SELECT :account_id, :new_job, :bucket, 'infer', lo, least(lo + :size, :total), lo / :size
    FROM generate_series(0, :total - 1, :size) AS lo
    """
)
