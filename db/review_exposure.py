"""How many pictures each reviewer has seen clear, by day and by what they were taken for; and a limit for a day.

A picture counts once a day however often it is shown; `shown` says how often that was. Days are UTC.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import erasure_fence
from db.errors import DbError
from db.items import ItemView
from db.review_sources import main_class


class ExposureLimit(DbError):
    """The reviewer has seen as many pictures clear today as the house lets anybody see in a day."""

    code = "exposure_limit"


@dataclass(frozen=True)
class Seen:
    """A day of a reviewer: distinct `pictures` seen clear that were taken for this, and how often they were shown."""

    actor: str
    day: date
    verdict: str
    class_: str
    pictures: int
    shown: int


@dataclass(frozen=True)
class Shown:
    """A picture that is about to be shown clear, and the automatic verdict on it."""

    sha256: bytes
    moderation: Mapping[str, Any] | None


def shown(items: Iterable[ItemView]) -> list[Shown]:
    """Those of these items that have a picture, as seen clear."""
    return [Shown(bytes.fromhex(item.facts["sha256"]), item.moderation) for item in items if item.facts is not None]


def count(session: Session, account_id: int, actor: str, pictures: Iterable[Shown], *, limit: int = 0) -> int:
    """Count these pictures as seen clear now; how many distinct ones the reviewer has seen today. ExposureLimit when
    that would be more than `limit` (0: no limit): roll back then, and show none of them. One that was erased since is
    not counted."""
    erasure_fence.share_lock(session, account_id)
    # One after the other for one reviewer: two pages at once must not both pass below the limit.
    session.execute(_ONE_AT_A_TIME, {"key": f"exposure:{account_id}:{actor}"})
    by_sha = {picture.sha256: picture for picture in pictures}
    for sha in sorted(by_sha):
        said = by_sha[sha].moderation
        session.execute(
            _COUNT,
            {
                "account_id": account_id,
                "actor": actor,
                "sha256": sha,
                "verdict": "none" if said is None else said.get("automatic") or said.get("verdict") or "none",
                "class": "none" if said is None else main_class(said),
            },
        )
    seen = today(session, account_id, actor)
    if limit and seen > limit:
        raise ExposureLimit(f"{limit} pictures seen clear are enough for a day. Go on with veiled ones, or tomorrow.")
    return seen


def today(session: Session, account_id: int, actor: str) -> int:
    """Distinct pictures that the reviewer has seen clear today."""
    return int(session.execute(_TODAY, {"account_id": account_id, "actor": actor}).scalar_one())


def by_day(session: Session, account_id: int, since: date) -> list[Seen]:
    """All reviewers' days since then, newest first."""
    rows = session.execute(_BY_DAY, {"account_id": account_id, "since": since})
    return [Seen(*row) for row in rows]


_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
_COUNT = text(
    """
    INSERT INTO review_exposures AS e (account_id, actor, day, sha256, verdict, class)
    SELECT :account_id, :actor, (now() AT TIME ZONE 'UTC')::date, :sha256, :verdict, :class
    WHERE EXISTS (SELECT FROM images i WHERE i.account_id = :account_id AND i.sha256 = :sha256)
    ON CONFLICT (account_id, actor, day, sha256) DO UPDATE SET shown = e.shown + 1
    """
)
_TODAY = text(
    """
    SELECT count(*) FROM review_exposures
    WHERE account_id = :account_id AND actor = :actor AND day = (now() AT TIME ZONE 'UTC')::date
    """
)
_BY_DAY = text(
    """
    SELECT actor, day, verdict, class, count(*), sum(shown)::bigint FROM review_exposures
    WHERE account_id = :account_id AND day >= :since
    GROUP BY actor, day, verdict, class ORDER BY day DESC, actor, verdict, class
    """
)
