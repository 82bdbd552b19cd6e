"""What an account has used of its limits. See `db.limits`."""

from datetime import date, datetime

from sqlalchemy import BigInteger, Date, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.tables import Base


class AccountRate(Base):
    """The account's bucket of requests: it is full again at `spent_until`."""

    __tablename__ = "account_rates"
    account_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    spent_until: Mapped[datetime]


class AccountDay(Base):
    """How many items the account has submitted on a day (UTC)."""

    __tablename__ = "account_days"
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    items: Mapped[int] = mapped_column(BigInteger)
