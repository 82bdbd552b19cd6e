"""The decisions on one picture in a context, as a page or a record shows them. Writes nothing."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True)
class PastDecision:
    """One decision; `verdict` None took an earlier one back. `before` and `after` are verdicts."""

    id: UUID
    kind: str
    verdict: str | None
    code: str | None
    text: str | None
    actor: str
    policy: str | None
    rule: str | None
    before: str | None
    after: str | None
    comment: str | None
    created_at: datetime


def of_item(
    session: Session, account_id: int, job_id: UUID, seq: int, sha256: bytes, context: str
) -> list[PastDecision]:
    """What people decided on the picture in this context, and what decided this item again, the newest first."""
    rows = session.execute(
        text(
            "SELECT id, kind, verdict, code, text, actor, policy, rule, before ->> 'verdict' AS before,"
            " after ->> 'verdict' AS after, comment, created_at FROM decisions"
            " WHERE account_id = :account_id AND ((sha256 = :sha256 AND context = :context"
            " AND kind IN ('review', 'appeal')) OR (job_id = :job_id AND seq = :seq)) ORDER BY id DESC LIMIT 100"
        ),
        {"account_id": account_id, "job_id": job_id, "seq": seq, "sha256": sha256, "context": context},
    )
    return [PastDecision(**row) for row in rows.mappings()]
