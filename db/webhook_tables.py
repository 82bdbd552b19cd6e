"""The tables of webhooks, as the code sees them; their DDL is in `migrations/`."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, SmallInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, REAL
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class Webhook(Base):
    """An endpoint of an account; `types` None: every event. `reason`: who or what disabled it."""

    __tablename__ = "webhooks"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    url: Mapped[str]
    description: Mapped[str | None]
    types: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    state: Mapped[str]
    reason: Mapped[str | None]
    failures: Mapped[int]
    failing_since: Mapped[datetime | None]
    paused_until: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class WebhookSecret(Base):
    """What a secret is derived from, never the secret: see `db.webhook_secrets`. The API's role cannot read `salt`."""

    __tablename__ = "webhook_secrets"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    account_id: Mapped[int] = mapped_column(BigInteger)
    salt: Mapped[bytes]
    key_id: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class Delivery(Base):
    """An event at an endpoint; states: `db.states`. `code` and `status` are of its last try."""

    __tablename__ = "deliveries"
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True)
    event_id: Mapped[UUID] = mapped_column(ForeignKey("outbox.id", ondelete="CASCADE"), primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    type: Mapped[str]
    state: Mapped[str]
    step: Mapped[int] = mapped_column(SmallInteger)
    attempts: Mapped[int]
    claims: Mapped[int] = mapped_column(SmallInteger)
    not_before: Mapped[datetime]
    owner: Mapped[UUID | None]
    fence: Mapped[int]
    lease_until: Mapped[datetime | None]
    code: Mapped[str | None]
    status: Mapped[int | None] = mapped_column(SmallInteger)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class DeliveryAttempt(Base):
    """One try: when, how long, how it ended (`code` None: well). Of what the receiver said, the status only."""

    __tablename__ = "delivery_attempts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["webhook_id", "event_id"], ["deliveries.webhook_id", "deliveries.event_id"], ondelete="CASCADE"
        ),
    )
    webhook_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime]
    code: Mapped[str | None]
    status: Mapped[int | None] = mapped_column(SmallInteger)
    seconds: Mapped[float] = mapped_column(REAL)
