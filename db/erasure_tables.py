"""The tables of erasures, tombstones, blobs to remove and retention, as the code sees them; DDL: `migrations/`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class Erasure(Base):
    """A request to forget, and its receipt. `account_id` None: of all accounts. `counts`: what was removed, by kind;
    `rows_at`: when no row was left; `settled_at`: when it had been looked for once more. Moves: `db.erasures`."""

    __tablename__ = "erasures"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int | None] = mapped_column(BigInteger)
    kind: Mapped[str]
    target: Mapped[str | None]
    target_sha256: Mapped[bytes]
    reference: Mapped[str | None]
    actor: Mapped[str]
    state: Mapped[str]
    ends_account: Mapped[bool]
    replayed: Mapped[bool]
    place: Mapped[dict[str, Any]]
    counts: Mapped[dict[str, Any]]
    journal_sha256: Mapped[bytes | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    rows_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]


class ErasedItem(Base):
    """The tombstone of an item: nothing is written of it any more."""

    __tablename__ = "erased_items"
    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    erasure_id: Mapped[UUID]
    erased_at: Mapped[datetime]


class ErasedPicture(Base):
    """The tombstone of bytes in an account (0: in all). `fenced`: refused to what was submitted before `erased_at`."""

    __tablename__ = "erased_pictures"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    erasure_id: Mapped[UUID] = mapped_column(primary_key=True)
    fenced: Mapped[bool]
    erased_at: Mapped[datetime]


class BlobRemoval(Base):
    """A blob to remove; `aged`: by a retention clock, whether a row names it or not."""

    __tablename__ = "blob_removals"
    key: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    erasure_id: Mapped[UUID | None]
    aged: Mapped[bool]
    asked_at: Mapped[datetime]
    gone_at: Mapped[datetime | None]


class RetentionClock(Base):
    """How far a kind of data is dropped: what is older than `at`, up to `place` among what is as old."""

    __tablename__ = "retention_clocks"
    kind: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    place: Mapped[str]
    dropped: Mapped[int] = mapped_column(BigInteger)
    moved_at: Mapped[datetime]


class PrunedSeal(Base):
    """The last seal of a part of the audit log that was dropped: the chain goes on from here."""

    __tablename__ = "audit_pruned"
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    hash: Mapped[bytes]
    entries: Mapped[int] = mapped_column(BigInteger)
    upto: Mapped[datetime]
    pruned_at: Mapped[datetime]
