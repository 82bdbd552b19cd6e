"""Which pictures may be shown as they are, and which only veiled. The veil itself is made in `api.pictures`.

What counts is the verdict, a person's first. People see clear what is approved and not to be looked at again; programs
of the shop see what is approved, and what nobody ever wanted moderated.
"""

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.items import ItemView


def clear_for_people(session: Session, account_id: int, item: ItemView) -> bool:
    """Approved, and not waiting for anybody: an appeal, a ban against the approval, a disagreement and a second opinion
    veil it again. An audit does not: it is drawn at random, and a veil would tell everybody which ones were."""
    return _approved(session, account_id, item) and not session.scalar(_WAITING, _parameters(account_id, item))


def clear_for_programs(session: Session, account_id: int, item: ItemView) -> bool:
    """Approved; or neither its job nor any other of the account had these bytes moderated with another end."""
    if item.moderation is not None:
        return _approved(session, account_id, item)
    return not session.scalar(_DOUBTED, _parameters(account_id, item))


def _approved(session: Session, account_id: int, item: ItemView) -> bool:
    said = item.moderation or {}
    if said.get("verdict") != "approve":
        return False
    # What a rerun has staged counts for nobody yet: what counts is the result that it stands for.
    return said.get("decision") is not None or not session.scalar(_STAGED, _parameters(account_id, item))


def _parameters(account_id: int, item: ItemView) -> dict[str, object]:
    sha256 = bytes.fromhex(item.facts["sha256"]) if item.facts is not None else None
    return {"account_id": account_id, "job_id": item.job_id, "seq": item.seq, "sha256": sha256}


# `kind <> 'gold'`: known answers decide nothing; and the index of open tasks has none.
_WAITING = text(
    """
    SELECT EXISTS (SELECT FROM jobs j
      JOIN review_tasks t ON t.account_id = j.account_id AND t.context = j.context
      WHERE j.account_id = :account_id AND j.id = :job_id AND t.sha256 = :sha256
        AND t.state = 'open' AND t.kind <> 'gold' AND t.reason <> 'audit')
    """
)
_STAGED = text(
    """
    SELECT EXISTS (SELECT FROM reruns n
      JOIN rerun_items i ON i.rerun_id = n.id AND i.seq = :seq
      JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.source_seq
      WHERE n.account_id = :account_id AND n.job_id = :job_id
        AND coalesce(r.moderation ->> 'verdict', '') <> 'approve')
    """
)
_DOUBTED = text(
    """
    SELECT EXISTS (SELECT FROM jobs WHERE account_id = :account_id AND id = :job_id AND 'moderation' = ANY(analyses))
      OR EXISTS (SELECT FROM human_decisions d
        WHERE d.account_id = :account_id AND d.sha256 = :sha256 AND d.verdict <> 'approve')
      OR EXISTS (SELECT FROM results r JOIN jobs j ON j.bucket = r.bucket AND j.id = r.job_id
        WHERE r.account_id = :account_id AND r.sha256 = :sha256 AND r.outcome = 'done'
          AND r.moderation ->> 'verdict' <> 'approve'
          AND NOT EXISTS (SELECT FROM reruns n WHERE n.job_id = j.id)
          AND NOT EXISTS (SELECT FROM human_decisions d
            WHERE d.account_id = :account_id AND d.sha256 = :sha256 AND d.context = j.context))
    """
)
