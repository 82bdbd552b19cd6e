"""The table of activations and rollbacks that people ask for, as the code sees it; its DDL is in `migrations/`."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class ModelMove(Base):
    """Somebody wants `ref` active for its task, or (rollback) the active version `ref` replaced by the one before it.
    Maintenance does it: whoever serves pages cannot read the weights. `forced`: the reason to pass the gate."""

    __tablename__ = "model_moves"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    action: Mapped[str]
    task: Mapped[str]
    ref: Mapped[str]
    forced: Mapped[str | None]
    actor: Mapped[str]
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(SmallInteger)
    code: Mapped[str | None]
    detail: Mapped[str | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
