"""The audit log: who did what. Ids and counts only, never payloads, keys or URLs."""

import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session


def record(session: Session, account_id: int | None, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Append an entry in the transaction of the act itself."""
    session.execute(
        text(
            "INSERT INTO audit_log (account_id, actor, action, subject, detail)"
            " VALUES (:account_id, :actor, :action, :subject, CAST(:detail AS jsonb))"
        ),
        {
            "account_id": account_id,
            "actor": actor,
            "action": action,
            "subject": subject,
            "detail": json.dumps(detail),
        },
    )
