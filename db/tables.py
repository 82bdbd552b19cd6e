"""The tables, as the code sees them. Their DDL, constraints, partitions and policies are in `migrations/`;
a test compares the two."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ForeignKey, Integer, LargeBinary, SmallInteger, Text
from sqlalchemy.dialects.postgresql import BIT, JSONB, REAL, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Common type mapping: text is text, times have a zone, JSON is jsonb."""

    type_annotation_map = {  # noqa: RUF012 — SQLAlchemy's own spelling
        str: Text,
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        bytes: LargeBinary,
        list[str]: ARRAY(Text),
    }


class Account(Base):
    """Whose data a row is. `weight` is its share when accounts compete for the machines; limits: `db.limits`."""

    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    weight: Mapped[int] = mapped_column(default=1)
    requests_per_minute: Mapped[int | None]
    items_per_day: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]


class ApiKey(Base):
    """A key's hash (SHA-256 of the whole key text), its scopes and its end."""

    __tablename__ = "api_keys"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    key_id: Mapped[str] = mapped_column(unique=True)
    secret_hash: Mapped[bytes]
    name: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class ModelVersion(Base):
    """An installed model artifact. At most one version a task is active (a partial unique index says so); `replaced`
    is the version that was active before it: where a rollback goes."""

    __tablename__ = "model_versions"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str]
    version: Mapped[str]
    task: Mapped[str]
    state: Mapped[str]
    sha256: Mapped[str]
    card: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]
    replaced: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    retired_at: Mapped[datetime | None]

    @property
    def ref(self) -> str:
        """How jobs and results name this version."""
        return f"{self.name}@{self.version}"


class Bucket(Base):
    """A set of partitions of the big tables; new jobs go into the one open bucket."""

    __tablename__ = "buckets"
    id: Mapped[int] = mapped_column(primary_key=True)
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class Job(Base):
    """A submitted job. `models` and `policy` are pinned at submit; `round` counts retries; `settled` holds the sums
    of earlier rounds; `followers` says how many items repeat another item's picture; `context` says where the pictures
    are to be shown; one that is not `listed` carries an upload (`moderations`); states: `db.states`."""

    __tablename__ = "jobs"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="accepted")
    lane: Mapped[str]
    analyses: Mapped[list[str]]
    options: Mapped[dict[str, Any]]
    bucket: Mapped[int] = mapped_column(ForeignKey("buckets.id"))
    total: Mapped[int] = mapped_column(default=0)
    followers: Mapped[int] = mapped_column(default=0)
    context: Mapped[str] = mapped_column(default="")
    listed: Mapped[bool] = mapped_column(default=True)
    models: Mapped[dict[str, Any]]
    policy: Mapped[dict[str, Any]]
    round: Mapped[int] = mapped_column(default=0)
    settled: Mapped[dict[str, Any]] = mapped_column(default=dict)
    cancelled: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]


class ChunkRow(Base):
    """The unit of lease and commit: up to 512 items of one job in one stage (`seqs`, or all of [lo, hi)).

    `urgent` (the interactive lane) and `turn` order the chunks of one account: a job's chunks have rising turns, and
    a new job starts at the turn that its account has come to, so that jobs take turns and none waits for ever."""

    __tablename__ = "chunks"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    bucket: Mapped[int]
    round: Mapped[int]
    stage: Mapped[str]
    state: Mapped[str]
    lo: Mapped[int]
    hi: Mapped[int]
    seqs: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    urgent: Mapped[bool]
    turn: Mapped[int] = mapped_column(BigInteger)
    not_before: Mapped[datetime]
    owner: Mapped[UUID | None]
    fence: Mapped[int]
    lease_until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(SmallInteger)
    deferrals: Mapped[int] = mapped_column(SmallInteger)
    progress: Mapped[int]
    done: Mapped[int]
    failed: Mapped[int]
    codes: Mapped[dict[str, Any]]
    reused: Mapped[dict[str, Any]]
    hinted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Item(Base):
    """A submitted picture, immutable. `same_as` names the first item of the job with the same URL or bytes; `category`
    is what its sender says it shows."""

    __tablename__ = "items"
    bucket: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    url: Mapped[str | None]
    filename: Mapped[str | None]
    raw_key: Mapped[str | None]
    client_id: Mapped[str | None]
    product_id: Mapped[str | None]
    same_as: Mapped[int | None]
    category: Mapped[str | None]


class Ingest(Base):
    """What came of fetching and normalising an item, written once."""

    __tablename__ = "ingests"
    bucket: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str]
    code: Mapped[str | None]
    sha256: Mapped[bytes | None]
    status: Mapped[int | None] = mapped_column(SmallInteger)


class Result(Base):
    """The outcome of an item, written once: tags and verdict, or the code of what failed. Only a published rerun
    replaces its tags or its moderation; `published` then says by task which model and which rerun that was."""

    __tablename__ = "results"
    bucket: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str]
    code: Mapped[str | None]
    detail: Mapped[str | None]
    sha256: Mapped[bytes | None]
    tags: Mapped[list[dict[str, Any]] | None]
    moderation: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    published: Mapped[dict[str, Any] | None]


class Image(Base):
    """Distinct bytes of an account: where the working copy is, and the content facts. `made_by`: the fingerprint of the
    normaliser that made the working copy; `aged_at`: when a retention clock had that removed."""

    __tablename__ = "images"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    work_key: Mapped[str]
    work_sha256: Mapped[bytes | None]
    bytes: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    format: Mapped[str]
    pdq: Mapped[str | None] = mapped_column(BIT(256))
    pdq_quality: Mapped[int | None] = mapped_column(SmallInteger)
    colours: Mapped[list[dict[str, Any]] | None]
    sharpness: Mapped[float | None] = mapped_column(REAL)
    created_at: Mapped[datetime]
    made_by: Mapped[int | None] = mapped_column(BigInteger)
    aged_at: Mapped[datetime | None]


class ValidatorRow(Base):
    """What the server of a URL called the bytes that an account fetched from it last: see `db.validators`."""

    __tablename__ = "validators"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    url_hash: Mapped[bytes] = mapped_column(primary_key=True)
    sha256: Mapped[bytes]
    etag: Mapped[str | None]
    last_modified: Mapped[str | None]
    seen_at: Mapped[datetime]


class Analysis(Base):
    """A model version's scores of an image, so that the same bytes are never analysed twice by it."""

    __tablename__ = "analyses"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    scores: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Idempotency(Base):
    """The answer once given to an Idempotency-Key, to be given again."""

    __tablename__ = "idempotency"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[bytes]
    status: Mapped[int] = mapped_column(SmallInteger)
    response: Mapped[dict[str, Any]]
    location: Mapped[str | None]
    created_at: Mapped[datetime]


class Outbox(Base):
    """Events, written in the transaction of what they tell; one a subject, type and round."""

    __tablename__ = "outbox"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    type: Mapped[str]
    subject: Mapped[str]
    round: Mapped[int]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    fanned_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Who did what to what; ids only, no payloads."""

    __tablename__ = "audit_log"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[int | None] = mapped_column(BigInteger)
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Worker(Base):
    """A process's heartbeat."""

    __tablename__ = "workers"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    role: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    gone_at: Mapped[datetime | None]
    stats: Mapped[dict[str, Any]]


class Host(Base):
    """A web host that asked to be left alone until a time (Retry-After), kept across restarts."""

    __tablename__ = "hosts"
    host: Mapped[str] = mapped_column(primary_key=True)
    not_before: Mapped[datetime]
    updated_at: Mapped[datetime]


class Dataset(Base):
    """A version of a labelled set of pictures: the hash of its manifest, and where manifest and pictures are."""

    __tablename__ = "datasets"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str]
    version: Mapped[str]
    sha256: Mapped[str]
    manifest_key: Mapped[str]
    images_root: Mapped[str]
    entries: Mapped[int]
    summary: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    @property
    def ref(self) -> str:
        """How commands name this version."""
        return f"{self.name}@{self.version}"


class TrainingRun(Base):
    """A training, leased by a trainer like a chunk by a worker; `name` and `version` are the model's to be."""

    __tablename__ = "training_runs"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    state: Mapped[str]
    name: Mapped[str]
    version: Mapped[str]
    config: Mapped[dict[str, Any]]
    init: Mapped[str | None]
    owner: Mapped[UUID | None]
    fence: Mapped[int]
    lease_until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(SmallInteger)
    progress: Mapped[dict[str, Any]]
    live: Mapped[dict[str, Any]]
    code: Mapped[str | None]
    detail: Mapped[str | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Evaluation(Base):
    """How a model did on a split of a dataset: flat `metrics` for the promotion gate, and the whole `report`."""

    __tablename__ = "evaluations"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    split: Mapped[str]
    images: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Rerun(Base):
    """Published results analysed again by another model in a job of its own; states: `db.states`."""

    __tablename__ = "reruns"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), unique=True)
    task: Mapped[str]
    model: Mapped[str]
    state: Mapped[str]
    selection: Mapped[dict[str, Any]]
    total: Mapped[int]
    position: Mapped[int]
    published: Mapped[int]
    restored: Mapped[int]
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class RerunItem(Base):
    """Which result an item of a rerun's job stands for; `before`: what publishing replaced there."""

    __tablename__ = "rerun_items"
    rerun_id: Mapped[UUID] = mapped_column(ForeignKey("reruns.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    bucket: Mapped[int]
    job_id: Mapped[UUID]
    source_seq: Mapped[int]
    before: Mapped[dict[str, Any] | None]
