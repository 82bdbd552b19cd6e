"""The table of replays, as the code sees it; its DDL is in `migrations/`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class Replay(Base):
    """A policy (`document`, named `policy`) over the results of a window, to see what it would change (`what_if`) or
    to decide them again (`redecide`); leased by one process at a time. `account_id` None: over all accounts;
    `selection`: the window's other conditions. States: `db.states`."""

    __tablename__ = "replays"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int | None] = mapped_column(BigInteger)
    kind: Mapped[str]
    policy: Mapped[str]
    document: Mapped[dict[str, Any]]
    since: Mapped[datetime]
    until: Mapped[datetime]
    selection: Mapped[dict[str, Any]]
    state: Mapped[str]
    actor: Mapped[str]
    owner: Mapped[UUID | None]
    fence: Mapped[int]
    lease_until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(SmallInteger)
    reached: Mapped[datetime | None]
    analyses: Mapped[int] = mapped_column(BigInteger)
    changed: Mapped[int] = mapped_column(BigInteger)
    result: Mapped[dict[str, Any] | None]
    code: Mapped[str | None]
    detail: Mapped[str | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
