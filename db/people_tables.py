"""The tables of people and their sessions, as the code sees them; their DDL is in `migrations/`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class PersonRow(Base):
    """Somebody who may sign in to the console, for one account. Without a password only a one-time link opens it;
    `operator` opens pages of the installation, whatever the `role` in the account."""

    __tablename__ = "people"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str | None] = mapped_column(unique=True)
    role: Mapped[str]
    operator: Mapped[bool]
    password_hash: Mapped[str | None]
    created_at: Mapped[datetime]
    last_sign_in_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]


class ConsoleSession(Base):
    """A browser that somebody signed in with. The cookie's token is kept as its SHA-256; `notices` are shown once."""

    __tablename__ = "console_sessions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    person_id: Mapped[UUID] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    means: Mapped[str]
    address: Mapped[str]
    agent: Mapped[str]
    notices: Mapped[list[dict[str, Any]]]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class SignInLink(Base):
    """A link that signs somebody in once, within minutes."""

    __tablename__ = "sign_in_links"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    person_id: Mapped[UUID] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    actor: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class SignInAttempt(Base):
    """A refused sign-in, counted against a name or an address until it is old."""

    __tablename__ = "sign_in_attempts"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    subject: Mapped[str]
    created_at: Mapped[datetime]
