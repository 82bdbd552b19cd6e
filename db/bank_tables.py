"""The tables of hash banks, as the code sees them; their DDL is in `migrations/`."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, SmallInteger
from sqlalchemy.dialects.postgresql import BIT, REAL
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class Bank(Base):
    """A list of PDQ hashes that block or allow pictures; without an account, the installation's. `distance` is the
    most differing bits of a hit, `quality` the least PDQ quality of a picture that is matched at all."""

    __tablename__ = "hash_banks"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    name: Mapped[str]
    kind: Mapped[str]
    description: Mapped[str | None]
    distance: Mapped[int] = mapped_column(SmallInteger)
    quality: Mapped[int] = mapped_column(SmallInteger)
    enabled: Mapped[bool]
    revision: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str]
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class Entry(Base):
    """A hash in a bank. It counts while it is enabled, neither expired nor in quarantine nor removed, and its bank is
    enabled; `share` is the part of pictures that it is rolled out to. `wide`: how many pictures that were accepted
    before it found, if that is more than the operator's limit and nobody has looked since."""

    __tablename__ = "hash_entries"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, unique=True)
    bank_id: Mapped[UUID] = mapped_column(ForeignKey("hash_banks.id", ondelete="CASCADE"))
    account_id: Mapped[int | None] = mapped_column(BigInteger)
    pdq: Mapped[str] = mapped_column(BIT(256))
    revision: Mapped[int] = mapped_column(BigInteger)
    enabled: Mapped[bool]
    share: Mapped[float] = mapped_column(REAL)
    reason: Mapped[str | None]
    source: Mapped[str | None]
    external_id: Mapped[str | None]
    comment: Mapped[str | None]
    sha256: Mapped[bytes | None]
    actor: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    expired_at: Mapped[datetime | None]
    quarantined_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    wide: Mapped[int | None]
    removed_at: Mapped[datetime | None]

    @property
    def hash(self) -> str:
        """The hash as people write it: 64 hexadecimal digits."""
        return f"{int(self.pdq, 2):064x}"

    @property
    def state(self) -> str:
        """on, wide (on, but somebody should look), off, expired, quarantined or removed; what outweighs the others
        first."""
        if self.removed_at is not None:
            return "removed"
        if self.quarantined_at is not None:
            return "quarantined"
        if self.expired_at is not None:
            return "expired"
        if not self.enabled:
            return "off"
        return "on" if self.wide is None else "wide"


class HashHit(Base):
    """A picture within the bank's distance of an entry. `retroactive`: found when the entry came, not when the picture
    did."""

    __tablename__ = "hash_hits"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    sha256: Mapped[bytes] = mapped_column(primary_key=True)
    entry_id: Mapped[UUID] = mapped_column(ForeignKey("hash_entries.id", ondelete="CASCADE"), primary_key=True)
    bank_id: Mapped[UUID]
    distance: Mapped[int] = mapped_column(SmallInteger)
    retroactive: Mapped[bool]
    created_at: Mapped[datetime]


class BankChange(Base):
    """A change of a bank that is worked off over the pictures there are: waiting → deciding → done, by maintenance.
    `pictures` it concerns, `results` decided again, `changed` verdicts or reasons, `kept` because a person approved."""

    __tablename__ = "bank_changes"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int | None] = mapped_column(BigInteger)
    bank_id: Mapped[UUID] = mapped_column(ForeignKey("hash_banks.id", ondelete="CASCADE"))
    entry_id: Mapped[UUID | None] = mapped_column(ForeignKey("hash_entries.id", ondelete="CASCADE"))
    after: Mapped[int] = mapped_column(BigInteger)
    upto: Mapped[int] = mapped_column(BigInteger)
    mode: Mapped[str]
    state: Mapped[str]
    actor: Mapped[str]
    pictures: Mapped[int]
    results: Mapped[int]
    changed: Mapped[int]
    kept: Mapped[int]
    created_at: Mapped[datetime]
    matched_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class BankRecheck(Base):
    """A picture to decide again; without a change, one whose hits changed while it was being scored."""

    __tablename__ = "bank_rechecks"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes]
    change_id: Mapped[UUID | None] = mapped_column(ForeignKey("bank_changes.id", ondelete="CASCADE"))
    seen_at: Mapped[datetime]
