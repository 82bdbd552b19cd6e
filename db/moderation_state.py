"""What is said of uploads for moderation, kept beside them: written again from the results and people's decisions.

Whoever writes a result or a decision calls `refresh` behind it, in the same transaction. What changes for the client
is an event, `moderation.decided`: once when the automatic verdict is there, and a new round whenever it is another one.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import locks, outbox
from db.ids import item_id

MAX_REASONS = 20
"""Reasons that an event repeats at most; the moderation itself has all of them."""


def meet(session: Session, account_id: int, context: str, shas: Iterable[bytes]) -> None:
    """For who writes a result of these pictures, or a person's decision on them, before it is told of: the second one
    waits for the first one's commit and sees it. Otherwise a decision made just when the bytes come again would miss
    that upload."""
    keys = [locks.lock_key("picture of uploads", account_id, context, sha.hex()) for sha in sorted(set(shas))]
    locks.lock_each(session, keys)


def refresh(session: Session, account_id: int, jobs: Iterable[UUID]) -> int:
    """Bring the moderations of these jobs up to date; how many had changed."""
    given = sorted(set(jobs))
    return _refresh(session, account_id, _OF_JOBS, {"jobs": given}) if given else 0


def refresh_pictures(session: Session, account_id: int, context: str, shas: Sequence[bytes]) -> int:
    """Bring the moderations of these pictures in this context up to date: a person decided on all of them at once."""
    return _refresh(session, account_id, _OF_PICTURES, {"context": context, "shas": list(shas)}) if shas else 0


def _refresh(session: Session, account_id: int, which: Any, parameters: dict[str, Any]) -> int:
    # Two statements: the second one reads what those committed whom the first one waited for.
    ids = list(session.scalars(which, {"account_id": account_id, **parameters}))
    if not ids:
        return 0
    changed = session.execute(_UPDATE, {"account_id": account_id, "ids": ids}).mappings().all()
    for row in changed:
        if row["told"]:
            round_ = row["events"] - 1
            outbox.emit(session, account_id, "moderation.decided", str(row["id"]), _payload(row), round_=round_)
    return len(changed)


def _payload(row: Any) -> dict[str, Any]:
    """What an event says: enough to act on, small enough for any receiver."""
    said = row["moderation"]
    return {
        "moderation": str(row["id"]),
        "client_id": row["client_id"],
        "item": item_id(row["job_id"], row["seq"]),
        "subject": {"user": row["subject_user"], "product": row["subject_product"]},
        "context": row["context"],
        "changed_at": row["changed_at"].isoformat(),
        "state": row["state"],
        "verdict": row["verdict"],
        "automatic": row["automatic"],
        "policy": said.get("policy"),
        "rule": said.get("rule"),
        "codes": list(dict.fromkeys(reason["code"] for reason in said.get("reasons", [])))[:MAX_REASONS],
        "decision": row["decision"],
    }


_OF_JOBS = text(
    "SELECT id FROM moderations WHERE account_id = :account_id AND job_id = ANY(:jobs) ORDER BY id FOR UPDATE"
)
_OF_PICTURES = text(
    "SELECT id FROM moderations WHERE account_id = :account_id AND sha256 = ANY(:shas) AND context = :context"
    " ORDER BY id FOR UPDATE"
)
_UPDATE = text(
    """
    WITH said AS (
      SELECT m.id, r.sha256, r.moderation, r.moderation ->> 'verdict' AS automatic, d.verdict AS human,
        CASE WHEN r.outcome <> 'done' THEN r.code END AS code,
        CASE WHEN d.id IS NOT NULL THEN jsonb_build_object('id', d.id, 'verdict', d.verdict, 'code', d.code,
          'text', d.text, 'kind', d.kind, 'at', d.created_at) END AS decision
      FROM moderations m JOIN jobs j ON j.id = m.job_id
      LEFT JOIN results r ON r.bucket = j.bucket AND r.job_id = m.job_id AND r.seq = m.seq
      LEFT JOIN human_decisions d ON d.account_id = m.account_id AND d.sha256 = r.sha256 AND d.context = m.context
        AND r.moderation IS NOT NULL -- an upload that failed is no decided one, whatever its bytes are elsewhere
      WHERE m.account_id = :account_id AND m.id = ANY(:ids)
    )
    UPDATE moderations m SET sha256 = s.sha256, automatic = s.automatic, human = s.human, code = s.code,
      changed_at = now(), events = m.events + (s.automatic IS NOT NULL)::int
    FROM said s
    WHERE m.id = s.id
      AND (m.sha256, m.automatic, m.human, m.code) IS DISTINCT FROM (s.sha256, s.automatic, s.human, s.code)
    RETURNING m.id, m.client_id, m.job_id, m.seq, m.subject_user, m.subject_product, m.context, m.state, m.verdict,
      m.automatic, m.changed_at, m.events, m.automatic IS NOT NULL AS told, s.moderation, s.decision
    """
)
