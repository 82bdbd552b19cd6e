"""Limits of an account: requests a minute and items a day. What is used of them is kept in Postgres, where the items
go too: so they hold over all API processes, and no other server has to be there (decision 0032).

A limit is the account's own, else the installation's; 0 means that there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit
from db.accounts import by_name
from db.errors import DbError, NotFound
from db.session import Database
from db.tables import Account

MINUTE_S: Final = 60.0
CHANGEABLE: Final = ("weight", "requests_per_minute", "items_per_day")


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket that holds a minute's requests: `left` of `per_minute` now, all of them again in `full_in_s`."""

    per_minute: int
    left: int
    full_in_s: float


@dataclass(frozen=True, slots=True)
class Day:
    """Items submitted since midnight (UTC), which comes again in `ends_in_s`; `per_day` 0: as many as one likes."""

    per_day: int
    items: int
    ends_in_s: float

    @property
    def left(self) -> int:
        """Items that may still be submitted today, where there is a limit."""
        return max(0, self.per_day - self.items)


class TryLater(DbError):
    """Too much for now. `wait_s`: after so many seconds it is worth another try."""

    def __init__(self, detail: str, wait_s: float) -> None:
        super().__init__(detail)
        self.wait_s = wait_s


class RateLimited(TryLater):
    """The account has used up its requests for now."""

    code = "rate_limited"

    def __init__(self, rate: Rate, wait_s: float) -> None:
        super().__init__(f"The account may send {rate.per_minute} requests a minute.", wait_s)
        self.rate = rate


class QuotaExceeded(TryLater):
    """The account may not submit so many items today."""

    code = "quota_exceeded"

    def __init__(self, day: Day) -> None:
        left = f"{day.left} of {day.per_day}"
        super().__init__(f"The account may submit {left} items until midnight (UTC).", day.ends_in_s)
        self.day = day


def take(database: Database, account_id: int, per_minute: int) -> Rate | None:
    """Take a request out of the bucket; RateLimited when it is empty, None without a limit.

    The generic cell rate algorithm (ITU-T I.371): a bucket is the time at which it will be full again, a request puts
    that off by 60 s ÷ `per_minute`, and it may not lie more than 60 s ahead. One statement, by the clock of Postgres,
    and a transaction of its own: between two round trips of a process that stands still nothing is locked.
    """
    if per_minute == 0:
        return None
    cost = MINUTE_S / per_minute
    with database.statement() as connection:
        row = connection.execute(_TAKE, {"account_id": account_id, "cost": cost, "most": MINUTE_S}).one()
    if row.taken:
        return Rate(per_minute, int((MINUTE_S - row.spent) / cost), max(0.0, row.spent))
    raise RateLimited(Rate(per_minute, 0, row.spent), max(0.0, row.spent + cost - MINUTE_S))


def today(session: Session, account_id: int, per_day: int) -> Day:
    """What the account has submitted today; `per_day` is the installation's limit, for an account without its own.
    NotFound for one that is gone, or another's."""
    row = session.execute(_TODAY, {"account_id": account_id, "per_day": per_day}).one_or_none()
    if row is None:
        raise NotFound("There is no such account.")
    return Day(row.most, row.items, float(row.ends_in_s))


def check(session: Session, account_id: int, per_day: int, items: int = 1) -> None:
    """QuotaExceeded where so many items more would not be accepted now: before anything costly is done."""
    day = today(session, account_id, per_day)
    if day.per_day and day.left < items:
        raise QuotaExceeded(day)


def spend(session: Session, account_id: int, items: int, per_day: int) -> None:
    """Count items that are accepted, in the transaction that accepts them; QuotaExceeded (roll back then).

    The day's row is locked until the end of the transaction, so never are more accepted than may be, however many
    submit at once: call it last.
    """
    if session.scalar(_SPEND, {"account_id": account_id, "items": items, "per_day": per_day}) is None:
        raise QuotaExceeded(today(session, account_id, per_day))


@dataclass(frozen=True, slots=True)
class Overview:
    """An account as operators see it. Its own limits, None: those of the settings."""

    name: str
    weight: int
    requests_per_minute: int | None
    items_per_day: int | None
    items_today: int


def overview(session: Session) -> list[Overview]:
    """All accounts, by name."""
    return [Overview(**row._mapping) for row in session.execute(_OVERVIEW)]


def change(session: Session, name: str, changes: Mapping[str, int | None], *, actor: str) -> Account:
    """Set `weight`, `requests_per_minute`, `items_per_day` of an account (None: as the settings say); NotFound."""
    account = by_name(session, name)
    for field, value in changes.items():
        if field not in CHANGEABLE:
            raise ValueError(f"{field!r} is none of {', '.join(CHANGEABLE)}")
        setattr(account, field, value)
    audit.record(session, account.id, actor, "account.change", name, **changes)
    session.flush()
    return account


_TAKE: Final = text("SELECT taken, spent FROM tagmill_take_request(:account_id, :cost, :most)")
_DAY: Final = "(now() AT TIME ZONE 'UTC')::date"
_TODAY: Final = text(
    f"""
    SELECT coalesce(a.items_per_day, :per_day) AS most, coalesce(d.items, 0) AS items,
      extract(epoch FROM ({_DAY} + 1)::timestamp AT TIME ZONE 'UTC' - now())::float8 AS ends_in_s
    FROM accounts a LEFT JOIN account_days d ON d.account_id = a.id AND d.day = {_DAY}
    WHERE a.id = :account_id
    """
)
_SPEND: Final = text(
    f"""
    WITH own AS (SELECT coalesce(items_per_day, :per_day) AS most FROM accounts WHERE id = :account_id)
    INSERT INTO account_days AS d (account_id, day, items)
    SELECT :account_id, {_DAY}, :items FROM own WHERE most = 0 OR :items <= most
    ON CONFLICT (account_id, day) DO UPDATE SET items = d.items + excluded.items
      WHERE (SELECT most FROM own) = 0 OR d.items + excluded.items <= (SELECT most FROM own)
    RETURNING items
    """
)
_OVERVIEW: Final = text(
    f"""
    SELECT a.name, a.weight, a.requests_per_minute, a.items_per_day, coalesce(d.items, 0) AS items_today
    FROM accounts a LEFT JOIN account_days d ON d.account_id = a.id AND d.day = {_DAY} ORDER BY a.name
    """
)
