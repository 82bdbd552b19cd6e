"""The tables of policies, as the code sees them; their DDL is in `migrations/`."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class PolicyVersion(Base):
    """A version of a policy, immutable but for its state; `account_id` None: the installation's, which every account
    may read. At most one version of a name is active. `source`: the text that the document was written as."""

    __tablename__ = "policies"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    name: Mapped[str]
    version: Mapped[int]
    state: Mapped[str]
    document: Mapped[dict[str, Any]]
    source: Mapped[str | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    activated_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]

    @property
    def ref(self) -> str:
        """How jobs and results name this version."""
        return f"{self.name}@{self.version}"


class PolicyActivation(Base):
    """A version became active in place of `replaced`; `version` None: `replaced` was retired without a successor."""

    __tablename__ = "policy_activations"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    name: Mapped[str]
    version: Mapped[int | None]
    replaced: Mapped[int | None]
    actor: Mapped[str]
    created_at: Mapped[datetime]


class PolicyAssignment(Base):
    """From here on this policy decides for an account (None: all) in a context (None: all); of an account and a context
    the newest row counts. `policy` None: the assignment before it is taken back."""

    __tablename__ = "policy_assignments"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    context: Mapped[str | None]
    policy: Mapped[str | None]
    actor: Mapped[str]
    created_at: Mapped[datetime]
