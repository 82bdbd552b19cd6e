"""The audit log: who did what, as ids, counts and digests, never payloads, keys or URLs. Chain: `db.audit_chain`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, and its place in the chain once it has one: `seq` and `hash` (hex)."""

    id: int
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    at: datetime
    seq: int | None
    hash: str | None


def record(session: Session, account_id: int | None, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Append an entry in the transaction of the act itself, to be sealed when that has committed."""
    session.execute(
        _RECORD,
        {
            "account_id": account_id,
            "actor": actor,
            "action": action,
            "subject": subject,
            "detail": json.dumps(detail),
        },
    )


def page(
    session: Session,
    account_id: int,
    *,
    action: str | None = None,
    subject: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> Sequence[Entry]:
    """The account's entries, newest first, those before the entry of that id."""
    parameters = {
        "account_id": account_id,
        "action": action,
        "subject": subject,
        "before": before,
        "limit": limit,
    }
    return [Entry(*row) for row in session.execute(_PAGE, parameters)]


_RECORD = text(
    """
    WITH entry AS (
      INSERT INTO audit_log (account_id, actor, action, subject, detail)
      VALUES (:account_id, :actor, :action, :subject, CAST(:detail AS jsonb)) RETURNING id)
    INSERT INTO audit_unsealed SELECT id FROM entry
    """
)
_PAGE = text(
    """
    SELECT a.id, a.actor, a.action, a.subject, a.detail, a.created_at, s.seq, encode(s.hash, 'hex')
    FROM audit_log a LEFT JOIN audit_seals s ON s.entry_id = a.id
    WHERE a.account_id = :account_id AND (CAST(:before AS bigint) IS NULL OR a.id < :before)
      AND (CAST(:action AS text) IS NULL OR a.action = :action)
      AND (CAST(:subject AS text) IS NULL OR a.subject = :subject)
    ORDER BY a.id DESC LIMIT :limit
    """
)
