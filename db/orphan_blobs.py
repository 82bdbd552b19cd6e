"""Blobs that no row names: which of some are, and how far the round over the store is that looks for them.

The round's place is in `retention_clocks`, kind `orphans`: `at` is when it began, `place` the last folder of the blob
store that was looked through, empty between two rounds.
"""

from collections.abc import Collection
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

KIND: Final = "orphans"
ROUND_S: Final = 86400.0
"""From the beginning of a round to that of the next, at least."""
PAUSE_S: Final = 60.0
"""Who moved the clock so recently goes on: nobody else takes a turn."""
BEGUN: Final = "-"


def begin(session: Session, round_s: float = ROUND_S, pause_s: float = PAUSE_S) -> str | None:
    """Take a turn: behind which folder to go on. None: nothing is due, or another process is at it."""
    session.execute(_MAKE)
    place = session.scalar(_BEGIN, {"round_s": round_s, "pause_s": pause_s, "begun": BEGUN})
    return None if place is None else "" if place == BEGUN else str(place)


def move(session: Session, place: str, removed: int) -> None:
    """The turn has come behind this folder (empty: no further than the last one) and removed so many blobs."""
    session.execute(_MOVE, {"place": place or BEGUN, "removed": removed})


def end(session: Session, removed: int) -> None:
    """The round is through."""
    session.execute(_MOVE, {"place": "", "removed": removed})


def unnamed(session: Session, keys: Collection[str]) -> list[str]:
    """Those of these uploads and working copies that no item and no image names."""
    raw = sorted(key for key in keys if key.startswith("raw/"))
    work = sorted(key for key in keys if key.startswith("work/"))
    named: set[str] = set()
    for query, asked in ((_ITEMS, raw), (_IMAGES, work)):
        if asked:
            named.update(session.scalars(query, {"keys": asked}))
    return sorted({*raw, *work} - named)


_MAKE = text(
    """
    INSERT INTO retention_clocks (kind, moved_at) VALUES ('orphans', 'epoch') ON CONFLICT (kind) DO NOTHING
    """
)
_BEGIN = text(
    """
    UPDATE retention_clocks SET moved_at = now(), at = CASE WHEN place = '' THEN now() ELSE at END,
      place = CASE WHEN place = '' THEN :begun ELSE place END
    WHERE kind = 'orphans' AND moved_at <= now() - make_interval(secs => :pause_s)
      AND (place <> '' OR at <= now() - make_interval(secs => :round_s)) RETURNING place
    """
)
_MOVE = text(
    """
    UPDATE retention_clocks SET place = :place, dropped = dropped + :removed, moved_at = now() WHERE kind = 'orphans'
    """
)
_ITEMS = text("SELECT i.raw_key FROM items i WHERE i.raw_key = ANY(CAST(:keys AS text[]))")
_IMAGES = text("SELECT i.work_key FROM images i WHERE i.work_key = ANY(CAST(:keys AS text[]))")
