"""How much waits for people, of all accounts: counted by maintenance, told with its heartbeat, read by the API.

The API's role sees one account at a time, so it cannot count this itself; and a scrape costs it one look at `workers`.
Times are stored as Unix seconds and become ages when they are asked for.
"""

from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

REASONS: Final = 20
"""Reasons that are told one by one; policies name them, so there may be any number. The others are `other` together."""
FRESH_S: Final = 120
"""What was counted longer ago is not told: nobody should believe it."""


def count(session: Session) -> dict[str, Any]:
    """What the heartbeat stores as `reviews`: open tasks by reason, leased ones, the time of the oldest that is not
    leased by level, open appeals and the time of the oldest. Known answers (gold) are no work that waits."""
    by_reason: dict[str, int] = {}
    oldest: dict[str, float] = {}
    leased = 0
    for row in session.execute(_TASKS):
        by_reason[row.reason] = by_reason.get(row.reason, 0) + row.tasks
        leased += row.leased
        if row.oldest is not None:
            oldest[row.level] = min(float(row.oldest), oldest.get(row.level, float("inf")))
    largest = sorted(by_reason, key=lambda reason: (-by_reason[reason], reason))
    told = {reason: by_reason[reason] for reason in largest[:REASONS]}
    if rest := sum(by_reason[reason] for reason in largest[REASONS:]):
        told["other"] = told.get("other", 0) + rest
    appeals: Any = session.execute(_APPEALS).one()
    return {
        "open": told,
        "leased": leased,
        "oldest": oldest,
        "appeals": int(appeals.open),
        "oldest_appeal": None if appeals.oldest is None else float(appeals.oldest),
        "counted": float(appeals.now),
    }


def told(session: Session) -> list[tuple[str, dict[str, str], float]]:
    """Gauges (name, labels, value) of the newest count; none while nobody has counted within `FRESH_S`."""
    row: Any = session.execute(_TOLD, {"fresh_s": FRESH_S}).one_or_none()
    if row is None:
        return []
    counted, now = row.reviews, float(row.now)
    oldest = {level: counted["oldest"].get(level) for level in ("reviewer", "curator")}

    def age(since: float | None) -> float:
        return 0.0 if since is None else max(0.0, now - since)

    return [
        *(("review_open", {"reason": reason}, float(tasks)) for reason, tasks in counted["open"].items()),
        ("review_leased", {}, float(counted["leased"])),
        *(("review_oldest_waiting_seconds", {"level": level}, age(since)) for level, since in oldest.items()),
        ("appeals_open", {}, float(counted["appeals"])),
        ("appeals_oldest_seconds", {}, age(counted["oldest_appeal"])),
    ]


# Of `review_tasks` the open rows only, by the index of the queue; decided ones stay for good.
_TASKS = text(
    """
    SELECT reason, level, count(*) AS tasks, count(*) FILTER (WHERE lease_until > now()) AS leased,
      extract(epoch FROM min(created_at) FILTER (WHERE lease_until IS NULL OR lease_until <= now())) AS oldest
    FROM review_tasks WHERE state = 'open' AND kind <> 'gold' GROUP BY reason, level
    """
)
_APPEALS = text(
    "SELECT count(*) AS open, extract(epoch FROM min(created_at)) AS oldest, extract(epoch FROM now()) AS now"
    " FROM appeals WHERE state = 'open'"
)
_TOLD = text(
    """
    SELECT stats -> 'reviews' AS reviews, extract(epoch FROM now()) AS now FROM workers
    WHERE role = 'maintenance' AND stats ? 'reviews'
      AND (stats -> 'reviews' ->> 'counted')::float8 > extract(epoch FROM now()) - :fresh_s
    ORDER BY (stats -> 'reviews' ->> 'counted')::float8 DESC LIMIT 1
    """
)
