"""The tables of appeals and of the chain over the audit log, as the code sees them; their DDL is in `migrations/`."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class UnsealedEntry(Base):
    """An entry of the audit log that has no place in the chain yet; written with the entry, removed with its seal."""

    __tablename__ = "audit_unsealed"
    entry_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class Seal(Base):
    """An entry's place in the chain: `hash` is made of the entry and of the hash before it."""

    __tablename__ = "audit_seals"
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    entry_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    prev_hash: Mapped[bytes]
    hash: Mapped[bytes]
    sealed_at: Mapped[datetime]


class AppealRow(Base):
    """An appeal against a verdict on a picture in a context: open → upheld | overturned | withdrawn, and back when the
    answer is taken back. `decision_id`: the person's decision that it is against (None: the machine's); `answer_id`:
    the decision that it led to; `version` counts its changes."""

    __tablename__ = "appeals"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes]
    context: Mapped[str]
    job_id: Mapped[UUID]
    seq: Mapped[int]
    moderation_id: Mapped[UUID | None]
    state: Mapped[str]
    verdict: Mapped[str]
    decision_id: Mapped[UUID | None]
    code: Mapped[str | None]
    policy: Mapped[str | None]
    text: Mapped[str]
    contact: Mapped[str | None]
    opened_by: Mapped[str]
    created_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    answer_id: Mapped[UUID | None]
    version: Mapped[int] = mapped_column(default=0)
