"""Jobs: submit, read, cancel. Progress, end and retries: `db.progress`, `db.endings`, `db.retries`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, limits, policy, policy_assignments, registry
from db.bulk import copy_rows
from db.chunks import TURN_NOW, URGENT_CHUNK
from db.errors import Conflict, EmptyJob, NoOpenBucket, NotFound, TooManyItems
from db.ids import uuid7
from db.session import long_statements
from db.tables import Job
from db.urls import without_fragment

MIN_CHUNK = 16
"""Small jobs are cut into chunks no smaller than this, so that several workers share them and progress shows."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """A picture to submit: by URL, or as uploaded bytes (`raw_key` in the blob store, with its `filename`)."""

    url: str | None = None
    filename: str | None = None
    raw_key: str | None = None
    client_id: str | None = None
    product_id: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class JobSpec:
    """What is asked of a job's pictures; `context`: where they are to be shown ("avatar", "listing"), "" if nowhere
    in particular; `policy`: the name of one, else that of the account and context. Not `listed`: an upload's."""

    analyses: tuple[str, ...] = ("tags", "moderation")
    lane: str = "bulk"
    name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    context: str = ""
    policy: str | None = None
    listed: bool = True


def submit(
    session: Session,
    account_id: int,
    spec: JobSpec,
    items: Iterable[NewItem],
    *,
    max_items: int,
    per_day: int = 0,
    chunk_size: int = 512,
) -> Job:
    """Accept a job: nothing → `accepted`, its items by COPY as they come, its ingest chunks `ready`.

    Pins the active models, and the policy's document. `per_day`: items an account without a limit of its own may
    submit in a day, 0: any. Memory: 16 bytes and a dict entry an item, to find repeated pictures. Raises UnknownPolicy,
    EmptyJob, TooManyItems, QuotaExceeded (roll back then); errors of `items` pass through.
    """
    limits.check(session, account_id, per_day)
    bucket = session.scalar(text("SELECT max(id) FROM buckets WHERE closed_at IS NULL"))
    if bucket is None:
        raise NoOpenBucket("No bucket is open; run `tagmill migrate` and the maintenance role.")
    job_id = uuid7()
    document = policy_assignments.pinned(session, account_id, spec.context, spec.policy)
    tasks = policy.validate(document).tasks(spec.analyses)
    active = {task: registry.active(session, task) for task in tasks}
    session.execute(
        _INSERT_JOB,
        {
            "id": job_id,
            "account_id": account_id,
            "name": spec.name,
            "context": spec.context,
            "listed": spec.listed,
            "lane": spec.lane,
            "analyses": list(spec.analyses),
            "options": json.dumps(spec.options),
            "bucket": bucket,
            "models": json.dumps({task: model and model.ref for task, model in active.items()}),
            "policy": json.dumps(document),
        },
    )
    long_statements(session, _LONG_S)
    counter = _Counter(max_items)
    columns = (
        "bucket", "job_id", "seq", "account_id", "url", "filename", "raw_key", "client_id", "product_id", "same_as",
        "category",
    )  # fmt: skip
    copy_rows(session, "items", bucket, columns, counter.rows(items, bucket, job_id, account_id))
    if counter.total == 0:
        raise EmptyJob("A job needs at least one item.")
    parameters = {
        "id": job_id,
        "total": counter.total,
        "followers": counter.followers,
        "size": min(chunk_size_of(spec.lane, chunk_size), max(MIN_CHUNK, -(-counter.total // 32))),
    }
    session.execute(_SET_TOTAL, parameters)
    session.execute(_INSERT_CHUNKS, parameters)
    limits.spend(session, account_id, counter.total, per_day)
    return session.get_one(Job, job_id)


def chunk_size_of(lane: str, chunk_size: int) -> int:
    """Interactive chunks are small: what else is interactive may have to wait for one."""
    return min(chunk_size, URGENT_CHUNK) if lane == "interactive" else chunk_size


class _Counter:
    """Numbers the items, finds the first of those with the same picture, and stops at the limit."""

    def __init__(self, max_items: int) -> None:
        self.total = 0
        self.followers = 0
        self._max = max_items
        self._first: dict[bytes, int] = {}

    def rows(self, items: Iterable[NewItem], bucket: int, job_id: UUID, account_id: int) -> Iterator[tuple[Any, ...]]:
        for item in items:
            if self.total >= self._max:
                raise TooManyItems(self._max)
            seq = self.total
            source = without_fragment(item.url) if item.url is not None else f"raw:{item.raw_key}"
            first = self._first.setdefault(blake2b(source.encode(), digest_size=16).digest(), seq)
            same_as = None if first == seq else first
            self.followers += same_as is not None
            self.total += 1
            yield (
                bucket, job_id, seq, account_id, item.url, item.filename, item.raw_key, item.client_id,
                item.product_id, same_as, item.category,
            )  # fmt: skip


def get(session: Session, account_id: int, job_id: UUID) -> Job:
    """One job of the account; NotFound for another account's too."""
    job = session.scalar(select(Job).where(Job.account_id == account_id, Job.id == job_id))
    if job is None:
        raise NotFound("There is no such job.")
    return job


def page(
    session: Session, account_id: int, *, state: str | None = None, after: UUID | None = None, limit: int = 50
) -> list[Job]:
    """The account's jobs but those of uploads (`db.moderations`), newest first, from the one before `after` on."""
    query = select(Job).where(Job.account_id == account_id, Job.listed).order_by(Job.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Job.state == state)
    if after is not None:
        query = query.where(Job.id < after)
    return list(session.scalars(query))


def cancel(session: Session, account_id: int, job_id: UUID, *, actor: str = "api") -> Job:
    """accepted or running → cancelled. Nothing new is claimed; the finaliser writes the missing outcomes.

    Cancelling a cancelled job changes nothing; a finished one is a Conflict.
    """
    job = session.scalar(select(Job).where(Job.account_id == account_id, Job.id == job_id).with_for_update())
    if job is None:
        raise NotFound("There is no such job.")
    if job.state == "finished":
        raise Conflict("The job is finished.")
    if job.state != "cancelled":
        session.execute(
            text("UPDATE jobs SET state = 'cancelled', cancelled_at = now() WHERE id = :id"), {"id": job_id}
        )
        audit.record(session, account_id, actor, "job.cancel", str(job_id))
        session.refresh(job)
    return job


_INSERT_JOB = text(
    "INSERT INTO jobs (id, account_id, name, lane, analyses, options, context, listed, bucket, models, policy)"
    " VALUES (:id, :account_id, :name, :lane, :analyses, CAST(:options AS jsonb), :context, :listed, :bucket,"
    " CAST(:models AS jsonb), CAST(:policy AS jsonb))"
)
_SET_TOTAL = text("UPDATE jobs SET total = :total, followers = :followers WHERE id = :id")
_INSERT_CHUNKS = text(
    f"""
    INSERT INTO chunks (account_id, job_id, bucket, round, stage, lo, hi, urgent, turn)
    SELECT account_id, id, bucket, round, 'ingest', lo, least(lo + :size, total), lane = 'interactive',
      {TURN_NOW} + lo / :size
    FROM jobs j, generate_series(0, total - 1, :size) AS lo WHERE id = :id
    """
)
# A statement may take as long as its rows need: a large job's COPY is not stuck.
_LONG_S = 900
