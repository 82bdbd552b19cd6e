"""Advisory locks: the only election there is. They end with the transaction, and so with a process that dies."""

from collections.abc import Sequence
from hashlib import blake2b

from sqlalchemy import text
from sqlalchemy.orm import Session


def lock_key(*parts: object) -> int:
    """A signed 64-bit key from the names of what is locked."""
    digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def try_lock(session: Session, *parts: object) -> bool:
    """Take the lock until the end of this transaction, or say False at once when another one has it."""
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": lock_key(*parts)}))


def lock(session: Session, *parts: object) -> None:
    """Take the lock until the end of this transaction, waiting for whoever has it."""
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_key(*parts)})


def lock_each(session: Session, keys: Sequence[int]) -> None:
    """Take these locks one after the other, as `lock` does; all who take several must do so in the same order."""
    session.execute(
        text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key"), {"keys": list(keys)}
    )
