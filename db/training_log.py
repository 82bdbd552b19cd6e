"""What happened in a training run, for who watches it: the newest entries, written by the run's trainer alone.

Not a record to build on: entries are lost with the trainer that had not written them yet.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

KEPT: Final = 1000


class Entry(NamedTuple):
    """One entry: its number in the run, from 1, when it was written, and the event as the training told it."""

    seq: int
    at: datetime
    event: dict[str, Any]


def append(session: Session, run_id: UUID, events: Sequence[Mapping[str, Any]]) -> None:
    """Add entries, and drop all but the newest KEPT. In the transaction of a `training.beat` that succeeded: then
    nobody else writes."""
    if not events:
        return
    rows = [{"run_id": run_id, "at": at, "event": json.dumps(dict(event))} for at, event in enumerate(events, 1)]
    last = session.scalar(text("SELECT coalesce(max(seq), 0) FROM training_log WHERE run_id = :id"), {"id": run_id})
    session.execute(
        text("INSERT INTO training_log (run_id, seq, event) VALUES (:run_id, :last + :at, CAST(:event AS jsonb))"),
        [{**row, "last": last} for row in rows],
    )
    session.execute(
        text("DELETE FROM training_log WHERE run_id = :id AND seq <= :most"),
        {"id": run_id, "most": (last or 0) + len(rows) - KEPT},
    )


def after(session: Session, run_id: UUID, seq: int = 0, limit: int = KEPT) -> list[Entry]:
    """The entries behind number `seq`, oldest first."""
    found = session.execute(
        text("SELECT seq, at, event FROM training_log WHERE run_id = :id AND seq > :seq ORDER BY seq LIMIT :limit"),
        {"id": run_id, "seq": seq, "limit": limit},
    )
    return [Entry(*row) for row in found]


def last(session: Session, run_id: UUID, count: int) -> list[Entry]:
    """The newest `count` entries, oldest first."""
    found = session.execute(
        text("SELECT seq, at, event FROM training_log WHERE run_id = :id ORDER BY seq DESC LIMIT :count"),
        {"id": run_id, "count": count},
    )
    return [Entry(*row) for row in found][::-1]
