"""Buckets: the partitions of items, ingests and results. New jobs go into the newest one; one whose jobs have all been
dropped for their age (`db.retention`) goes with its files and indexes."""

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


def drop_empty(session: Session) -> int | None:
    """Drop the partitions of a bucket that was closed a day ago and has no job any more; its number. None where there
    is none, or where a partition's parent is not free within a tenth of a second: nobody is to wait for this."""
    dropped: int | None = session.scalar(text("SELECT tagmill_drop_bucket()"))
    return dropped
