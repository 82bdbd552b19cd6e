"""Idempotency keys: the first answer to a key is stored with what it did, and given again.

The key is locked by an advisory lock of the transaction that does the work, so a process that dies leaves nothing
behind, and a second request with the same key learns at once that the first is still in flight.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.errors import InFlight
from db.locks import try_lock


@dataclass(frozen=True)
class Stored:
    """The first answer to a key. `request_hash` tells whether the request is the same one."""

    request_hash: bytes
    status: int
    response: dict[str, Any]
    location: str | None


def begin(session: Session, account_id: int, key: str) -> Stored | None:
    """The stored answer of this key, or None when this transaction may now do the work. Raises InFlight."""
    if not try_lock(session, "idempotency", account_id, key):
        raise InFlight("A request with this Idempotency-Key is being worked on.")
    row = session.execute(
        text(
            "SELECT request_hash, status, response, location FROM idempotency"
            " WHERE account_id = :account_id AND key = :key"
        ),
        {"account_id": account_id, "key": key},
    ).first()
    return None if row is None else Stored(bytes(row.request_hash), row.status, row.response, row.location)


def store(
    session: Session,
    account_id: int,
    key: str,
    request_hash: bytes,
    status: int,
    response: dict[str, Any],
    location: str | None = None,
) -> None:
    """Keep the answer, in the transaction of the work."""
    session.execute(
        text(
            "INSERT INTO idempotency (account_id, key, request_hash, status, response, location) VALUES"
            " (:account_id, :key, :request_hash, :status, CAST(:response AS jsonb), :location)"
        ),
        {
            "account_id": account_id,
            "key": key,
            "request_hash": request_hash,
            "status": status,
            "response": json.dumps(response),
            "location": location,
        },
    )


def forget(session: Session, older_than_hours: int = 48) -> int:
    """Drop answers older than the promise (24 hours at least); returns how many."""
    gone = session.execute(
        text("DELETE FROM idempotency WHERE created_at < now() - make_interval(hours => :hours) RETURNING 1"),
        {"hours": older_than_hours},
    )
    return len(gone.all())
