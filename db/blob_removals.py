"""Blobs that are to go: noted in the transaction that forgets what named them, removed by `worker.erasing`.

A blob that a row names again by then stays, and so does one that was stored after it was noted: whoever stored it
names it, or notes it again. Who is about to name one says so here first (`keep`), and learns which are gone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.session import changed


@dataclass(frozen=True, slots=True)
class Removal:
    """A blob to remove. `asked_s`: when that was noted, in the database's Unix time; `wanted`: a row names it."""

    key: str
    asked_s: float
    wanted: bool


def ask(
    session: Session, account_id: int, keys: Collection[str], *, erasure_id: UUID | None = None, aged: bool = False
) -> int:
    """Note blobs; `aged`: also those that rows name. How many."""
    parameters = {
        "account_id": account_id, "keys": sorted(keys), "erasure_id": erasure_id, "aged": aged
    }  # fmt: skip
    return changed(session.execute(_ASK, parameters)) if keys else 0


def keep(session: Session, keys: Collection[str], chunk_id: int) -> set[str]:
    """This transaction is about to name blobs that the chunk stored: nobody is to remove them any more. Those that were
    removed since the chunk came to be, perhaps after it had stored them. Waits for a removal in progress."""
    parameters = {"keys": sorted(keys), "chunk_id": chunk_id}
    if keys:
        session.execute(_KEEP, parameters)
    return set(session.scalars(_LOST, parameters)) if keys else set()


def due(session: Session, limit: int = 500) -> list[Removal]:
    """The next ones, locked until the end of this transaction: no other process removes them too."""
    return [Removal(row.key, row.asked_s, row.wanted) for row in session.execute(_DUE, {"limit": limit})]


def end(session: Session, gone: Sequence[str], kept: Sequence[str]) -> None:
    """These are removed; those stay, for somebody has use for them again."""
    session.execute(_GONE, {"keys": list(gone)})
    session.execute(_FORGET, {"keys": list(kept)})


def waiting(session: Session, erasure_id: UUID) -> int:
    """How many blobs of an erasure are still there."""
    return int(session.execute(_WAITING, {"id": erasure_id}).scalar_one())


def of(session: Session, erasure_id: UUID) -> list[str]:
    """All blobs that an erasure removed or is to remove."""
    return list(session.scalars(_OF, {"id": erasure_id}))


def removed(session: Session, erasure_id: UUID) -> list[str]:
    """The blobs that an erasure removed so far."""
    return list(session.scalars(_REMOVED, {"id": erasure_id}))


def forget(session: Session) -> int:
    """Drop notes that nobody asks for any more: their erasure is settled, or there was none."""
    return changed(session.execute(_FORGET_OLD))


# Noted again, the newer time counts: a writer that was refused has just stored it.
_ASK = text(
    """
    INSERT INTO blob_removals (key, account_id, erasure_id, aged, asked_at)
    SELECT key, :account_id, :erasure_id, :aged, clock_timestamp() FROM unnest(CAST(:keys AS text[])) AS key
    ON CONFLICT (key) DO UPDATE SET asked_at = clock_timestamp(), gone_at = NULL,
      erasure_id = coalesce(excluded.erasure_id, blob_removals.erasure_id), aged = blob_removals.aged AND excluded.aged
    """
)
# In one order, for two chunks may store the same pictures. Who waited here for a removal finds the blob gone, and keeps
# its note. A removal that waited finds no note.
_KEEP = text(
    """
    DELETE FROM blob_removals WHERE key IN (
      SELECT key FROM blob_removals WHERE key = ANY(:keys) AND gone_at IS NULL ORDER BY key FOR UPDATE)
    """
)
_LOST = text(
    """
    SELECT key FROM blob_removals WHERE key = ANY(:keys)
      AND gone_at >= (SELECT c.created_at FROM chunks c WHERE c.id = :chunk_id)
    """
)
_DUE = text(
    """
    WITH next AS (
      SELECT key, account_id, asked_at, aged FROM blob_removals WHERE gone_at IS NULL
      ORDER BY asked_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    SELECT n.key, extract(epoch FROM n.asked_at)::float8 AS asked_s, NOT n.aged AND (
      EXISTS (SELECT FROM images i WHERE i.work_key = n.key) OR EXISTS (SELECT FROM items t WHERE t.raw_key = n.key)
    ) AS wanted FROM next n
    """
)
_GONE = text("UPDATE blob_removals SET gone_at = now() WHERE key = ANY(:keys)")
_FORGET = text("DELETE FROM blob_removals WHERE key = ANY(:keys)")
_WAITING = text("SELECT count(*) FROM blob_removals WHERE erasure_id = :id AND gone_at IS NULL")
_OF = text("SELECT key FROM blob_removals WHERE erasure_id = :id")
_REMOVED = text("SELECT key FROM blob_removals WHERE erasure_id = :id AND gone_at IS NOT NULL ORDER BY key")
_FORGET_OLD = text(
    """
    DELETE FROM blob_removals b WHERE b.gone_at < now() - interval '1 day' AND NOT EXISTS (
      SELECT FROM erasures e WHERE e.id = b.erasure_id AND e.settled_at IS NULL)
    """
)
