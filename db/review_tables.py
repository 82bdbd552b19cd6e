"""The tables of the review queue, as the code sees them; their DDL is in `migrations/`."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.dialects.postgresql import BIT, REAL
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Double

from db.tables import Base


class ReviewTask(Base):
    """A picture in a context that a person shall look at, shown through one item (`also`: others that show it).

    `kind`: first (decides), second (compares) or gold (its answer is known: `expected`). `version` rises with every
    move. `audit_verdict` and `audit_share`: an automatic verdict, drawn with that share; the reviewer is not told it.
    """

    __tablename__ = "review_tasks"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes]
    context: Mapped[str]
    kind: Mapped[str]
    level: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str]
    policy: Mapped[str | None]
    category: Mapped[str | None]
    risk: Mapped[float] = mapped_column(REAL)
    exposure: Mapped[int]
    rank: Mapped[float] = mapped_column(Double)
    job_id: Mapped[UUID]
    seq: Mapped[int]
    items: Mapped[int]
    also: Mapped[list[str]]
    pdq: Mapped[str | None] = mapped_column(BIT(256))
    only_for: Mapped[str | None]
    not_for: Mapped[list[str]]
    skips: Mapped[dict[str, Any]]
    version: Mapped[int]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    parent: Mapped[UUID | None]
    audit_verdict: Mapped[str | None]
    audit_share: Mapped[float | None] = mapped_column(Double)
    expected: Mapped[str | None]
    verdict: Mapped[str | None]
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None]
    decision_id: Mapped[UUID | None]
    created_at: Mapped[datetime]


class ReviewOpinion(Base):
    """What a reviewer said of a task; only added. `takes_back` names the opinion that a row without verdict ends."""

    __tablename__ = "review_opinions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    task_id: Mapped[UUID] = mapped_column(ForeignKey("review_tasks.id", ondelete="CASCADE"))
    sha256: Mapped[bytes]
    context: Mapped[str]
    kind: Mapped[str]
    actor: Mapped[str]
    verdict: Mapped[str | None]
    expected: Mapped[str | None]
    decision_id: Mapped[UUID | None]
    takes_back: Mapped[UUID | None]
    created_at: Mapped[datetime]


class ReviewComment(Base):
    """A reviewer's remark on a task, for the next one who looks at it."""

    __tablename__ = "review_comments"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    task_id: Mapped[UUID] = mapped_column(ForeignKey("review_tasks.id", ondelete="CASCADE"))
    actor: Mapped[str]
    text: Mapped[str]
    created_at: Mapped[datetime]


class ReviewGold(Base):
    """A picture whose right answer a curator has said; it is given to reviewers among the others."""

    __tablename__ = "review_gold"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes]
    context: Mapped[str]
    job_id: Mapped[UUID]
    seq: Mapped[int]
    reason: Mapped[str]
    verdict: Mapped[str]
    added_by: Mapped[str]
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class ReviewExposure(Base):
    """A picture that a reviewer saw clear on a day, how often, and what it was taken for."""

    __tablename__ = "review_exposures"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    actor: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    verdict: Mapped[str]
    class_: Mapped[str] = mapped_column("class")
    shown: Mapped[int]
