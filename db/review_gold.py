"""Pictures whose right answer a curator has said. They are given to reviewers among the others, unmarked; what is said
of them measures reviewers and decides nothing."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, erasure_fence
from db.errors import Conflict, NotFound
from db.ids import parse_item_id, uuid7
from db.review_queue import DOUBLING_S, rank
from db.review_sources import AUDIT_RISK, main_code
from db.review_tables import ReviewGold


def add(session: Session, account_id: int, actor: str, public_id: str, verdict: str) -> ReviewGold:
    """Keep `verdict` as the right answer to an item's picture in its job's context, in place of an earlier one.
    NotFound; Conflict for an item without a picture."""
    try:
        job_id, seq = parse_item_id(public_id)
    except ValueError:
        raise NotFound("There is no such item.") from None
    erasure_fence.share_lock(session, account_id)
    found = session.execute(_PICTURE, {"account_id": account_id, "job_id": job_id, "seq": seq}).first()
    if found is None:
        raise NotFound("There is no such item.")
    if found.sha256 is None:
        raise Conflict("The item has no picture yet, or could not be read.")
    picture = {"account_id": account_id, "sha256": bytes(found.sha256), "context": found.context}
    session.execute(_REMOVE, picture)
    values = {
        **picture,
        "id": uuid7(),
        "job_id": job_id,
        "seq": seq,
        "reason": _reason(found.moderation),
        "verdict": verdict,
        "added_by": actor,
    }
    session.execute(_ADD, values)
    audit.record(session, account_id, actor, "review.gold_add", str(values["id"]), verdict=verdict)
    return session.get_one(ReviewGold, values["id"])


def remove(session: Session, account_id: int, actor: str, gold_id: UUID) -> None:
    """Give it to nobody any more; NotFound. What was said of it counts on."""
    gone = session.execute(_REMOVE_ONE, {"account_id": account_id, "id": gold_id}).first()
    if gone is None:
        raise NotFound("There is no such known answer.")
    session.execute(_CLOSE, {"account_id": account_id, "sha256": gone.sha256, "context": gone.context})
    audit.record(session, account_id, actor, "review.gold_remove", str(gold_id))


def every(session: Session, account_id: int, limit: int = 1000) -> list[ReviewGold]:
    """The account's known answers, newest first."""
    query = select(ReviewGold).where(ReviewGold.account_id == account_id, ReviewGold.removed_at.is_(None))
    return list(session.scalars(query.order_by(ReviewGold.id.desc()).limit(limit)))


def give(session: Session, account_id: int, actor: str, count: int, which: Mapping[str, str | None]) -> list[UUID]:
    """Tasks of up to so many known pictures that this reviewer has not been asked about, and did not decide or mark
    himself; they are his alone. `which`: what he filters by, by name; another picture would be seen through."""
    if count < 1:
        return []
    parameters = {"account_id": account_id, "actor": actor, "limit": count, "risk": AUDIT_RISK, **which}
    found = session.execute(_CHOOSE, parameters).mappings().all()
    tasks = [{**parameters, **row, "id": uuid7(), "doubling_s": DOUBLING_S} for row in found]
    if tasks:
        session.execute(_GIVE, tasks)
    return [task["id"] for task in tasks]


def _reason(moderation: dict[str, Any] | None) -> str:
    """What a task of the line would say of this picture; one that is not in doubt comes up in audits only."""
    if moderation is None or moderation["verdict"] != "review":
        return "audit"
    return main_code(moderation.get("reasons") or [])


_PICTURE = text(
    """
    SELECT CASE WHEN r.outcome = 'done' THEN r.sha256 END AS sha256, j.context, r.moderation
    FROM jobs j JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id
    LEFT JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq
    WHERE j.account_id = :account_id AND j.id = :job_id AND i.seq = :seq
    """
)
_REMOVE = text(
    """
    UPDATE review_gold SET removed_at = now()
    WHERE account_id = :account_id AND sha256 = :sha256 AND context = :context AND removed_at IS NULL
    """
)
_REMOVE_ONE = text(
    """
    UPDATE review_gold SET removed_at = now() WHERE account_id = :account_id AND id = :id AND removed_at IS NULL
    RETURNING sha256, context
    """
)
_CLOSE = text(
    """
    UPDATE review_tasks SET state = 'closed', version = version + 1, lease_owner = NULL, lease_until = NULL
    WHERE account_id = :account_id AND sha256 = :sha256 AND context = :context AND kind = 'gold' AND state = 'open'
    """
)
_ADD = text(
    """
    INSERT INTO review_gold (id, account_id, sha256, context, job_id, seq, reason, verdict, added_by)
    VALUES (:id, :account_id, :sha256, :context, :job_id, :seq, :reason, :verdict, :added_by)
    """
)
_CHOOSE = text(
    """
    SELECT g.sha256, g.context, g.job_id, g.seq, g.reason, g.verdict AS expected,
      r.moderation ->> 'policy' AS of_policy FROM review_gold g
    LEFT JOIN jobs j ON j.id = g.job_id AND j.account_id = g.account_id
    LEFT JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id AND i.seq = g.seq
    LEFT JOIN results r ON r.bucket = j.bucket AND r.job_id = j.id AND r.seq = g.seq
    WHERE (CAST(:reason AS text) IS NULL OR g.reason = :reason) AND (CAST(:context AS text) IS NULL
        OR g.context = :context) AND (CAST(:category AS text) IS NULL OR i.category = :category)
      AND (CAST(:policy AS text) IS NULL OR r.moderation ->> 'policy' = :policy
        OR starts_with(r.moderation ->> 'policy', CAST(:policy AS text) || '@'))
      AND g.account_id = :account_id AND g.removed_at IS NULL AND g.added_by <> :actor
      AND NOT EXISTS (
        SELECT FROM review_opinions o WHERE o.account_id = g.account_id AND o.actor = :actor AND o.sha256 = g.sha256
          AND o.context = g.context)
      AND NOT EXISTS (
        SELECT FROM review_tasks t WHERE t.account_id = g.account_id AND t.sha256 = g.sha256 AND t.context = g.context
          AND ((t.kind = 'gold' AND t.only_for = :actor) OR t.lease_owner = :actor))
    ORDER BY random() LIMIT :limit
    """
)
# It seems to have waited as others wait, and to come of a policy as they do.
_GIVE = text(
    f"""
    INSERT INTO review_tasks (id, account_id, sha256, context, kind, reason, policy, risk, rank, job_id, seq, only_for,
      expected, created_at)
    VALUES (:id, :account_id, :sha256, :context, 'gold', :reason, :of_policy, :risk,
      {rank("now()", "CAST(:risk AS real)", "1")}, :job_id, :seq, :actor, :expected,
      (SELECT now() - random() * (now() - coalesce(min(created_at), now())) FROM review_tasks
        WHERE account_id = :account_id AND state = 'open' AND kind = 'first'))
    """
)
