"""Buckets: the partitions of items, ingests and results. New jobs go into the newest one."""

from sqlalchemy import text
from sqlalchemy.orm import Session

MAX_ITEMS = 10_000_000
"""Items after which a new bucket is opened: partitions of a few GB keep their indexes in memory."""


def open_when_full(session: Session, max_items: int = MAX_ITEMS) -> int | None:
    """Open the next bucket when the open one holds `max_items` or more; returns the new one's number."""
    full = session.scalar(
        text(
            "SELECT coalesce(sum(total), 0) >= :max_items FROM jobs"
            " WHERE bucket = (SELECT max(id) FROM buckets WHERE closed_at IS NULL)"
        ),
        {"max_items": max_items},
    )
    return session.scalar(text("SELECT tagmill_open_bucket()")) if full else None
