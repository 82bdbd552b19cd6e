"""The outbox: events written in the same transaction as what they tell, once a (subject, type, round)."""

import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.ids import uuid7


def emit(
    session: Session, account_id: int, type_: str, subject: str, payload: dict[str, Any], *, round_: int = 0
) -> bool:
    """Add an event; False when this (subject, type, round) has one already."""
    added = session.execute(
        text(
            "INSERT INTO outbox (id, account_id, type, subject, round, payload)"
            " VALUES (:id, :account_id, :type, :subject, :round, CAST(:payload AS jsonb))"
            " ON CONFLICT (subject, type, round) DO NOTHING RETURNING id"
        ),
        {
            "id": uuid7(),
            "account_id": account_id,
            "type": type_,
            "subject": subject,
            "round": round_,
            "payload": json.dumps(payload),
        },
    )
    return added.first() is not None
