"""The tables of learning from people and of watching models, as the code sees them; their DDL is in `migrations/`."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ForeignKey, SmallInteger
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, REAL
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class LabelRow(Base):
    """What a person said of a picture in one label group; only added. The newest row of a group counts, and one
    without `present` takes back what was said. `job_id` and `seq` name the item that it was said of."""

    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes]
    group: Mapped[str]
    kind: Mapped[str]
    present: Mapped[list[str] | None]
    absent: Mapped[list[str]]
    source: Mapped[str]
    actor: Mapped[str]
    job_id: Mapped[UUID | None]
    seq: Mapped[int | None]
    comment: Mapped[str | None]
    created_at: Mapped[datetime]


class DriftRow(Base):
    """What a model said of a source's pictures on one day (UTC): counts (`figures`), and how far they are from the
    baseline. `reason`: why the level is unknown; `measures`: what moved most, most severe first."""

    __tablename__ = "drift"
    day: Mapped[date] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    pictures: Mapped[int]
    figures: Mapped[dict[str, Any]]
    level: Mapped[str]
    reason: Mapped[str | None]
    psi: Mapped[float | None] = mapped_column(DOUBLE_PRECISION)
    baseline: Mapped[dict[str, Any] | None]
    measures: Mapped[list[dict[str, Any]]]


class DriftDay(Base):
    """A day whose drift was computed, and when last."""

    __tablename__ = "drift_days"
    day: Mapped[date] = mapped_column(primary_key=True)
    computed_at: Mapped[datetime]


class ShadowRun(Base):
    """A candidate (`model`) scoring a sample of live pictures beside the active version (`against`), leased by one
    process at a time; `seen_at` and `seen_chunk` say how far it has looked. States: `db.states`."""

    __tablename__ = "shadow_runs"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    task: Mapped[str]
    model: Mapped[str]
    against: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str | None]
    code: Mapped[str | None]
    detail: Mapped[str | None]
    share: Mapped[float]
    pictures: Mapped[int | None]
    until: Mapped[datetime | None]
    seen_at: Mapped[datetime]
    seen_chunk: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[UUID | None]
    fence: Mapped[int]
    lease_until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(SmallInteger)
    not_before: Mapped[datetime]
    worked_at: Mapped[datetime | None]
    compared: Mapped[int]
    failed: Mapped[int]
    agreed: Mapped[dict[str, Any]]
    active_s: Mapped[float]
    candidate_s: Mapped[float]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class ShadowPicture(Base):
    """What the two models of a shadow run said of a picture: scores in the order of their labels, or the `code` of what
    failed and on which `side`. `job_id` and `seq` name an item that showed it."""

    __tablename__ = "shadow_pictures"
    run_id: Mapped[UUID] = mapped_column(ForeignKey("shadow_runs.id", ondelete="CASCADE"), primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    job_id: Mapped[UUID]
    seq: Mapped[int]
    active: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    candidate: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    side: Mapped[str | None]
    code: Mapped[str | None]
    created_at: Mapped[datetime]


class TrainingLogRow(Base):
    """One entry of a training run's log; the newest are kept."""

    __tablename__ = "training_log"
    run_id: Mapped[UUID] = mapped_column(ForeignKey("training_runs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    event: Mapped[dict[str, Any]]
