"""The tables of moderation, as the code sees them: decisions and uploads; their DDL is in `migrations/`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, FetchedValue, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class DecisionRow(Base):
    """A decision on a picture in a context, made on an item; only added. Of a person's (review, appeal) the newest
    counts, and one without a verdict takes the earlier one back; an automatic re-decision (policy, bank, rerun)
    keeps the result's moderation `before` and `after`. What was decided at once is a `batch`, with one digest in the
    audit log."""

    __tablename__ = "decisions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes]
    context: Mapped[str]
    job_id: Mapped[UUID]
    seq: Mapped[int]
    kind: Mapped[str]
    verdict: Mapped[str | None]
    code: Mapped[str | None]
    text: Mapped[str | None]
    actor: Mapped[str]
    policy: Mapped[str | None]
    rule: Mapped[str | None]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    takes_back: Mapped[UUID | None]
    comment: Mapped[str | None]
    created_at: Mapped[datetime]
    batch: Mapped[UUID | None]


class ModerationRow(Base):
    """A picture sent for moderation: whose it is, where it is to be shown, the item that carries it, and what is said
    of it now: the automatic verdict and a person's, or the `code` of the failure. `events` counts what was told."""

    __tablename__ = "moderations"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    seq: Mapped[int]
    client_id: Mapped[str | None]
    subject_user: Mapped[str | None]
    subject_product: Mapped[str | None]
    context: Mapped[str]
    created_at: Mapped[datetime]
    sha256: Mapped[bytes | None]
    automatic: Mapped[str | None]
    human: Mapped[str | None]
    code: Mapped[str | None]
    verdict: Mapped[str | None] = mapped_column(FetchedValue())
    state: Mapped[str] = mapped_column(FetchedValue())
    changed_at: Mapped[datetime | None]
    events: Mapped[int] = mapped_column(default=0)
