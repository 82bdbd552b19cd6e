"""Appeals against verdicts: opened by the account of the subject, decided in the review queue by somebody who has not
decided on the picture before.

    nothing → open           `start`: a task of the review queue, reason `appeal`
    open → upheld, overturned   `settle`, in the transaction of the decision (kind appeal), which then counts
    upheld, overturned → open   `reopen`: the reviewer took the decision back
    open → withdrawn         `withdraw`: the account
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, erasure_fence, jobs, outbox, review_queue
from db.decisions import HUMAN
from db.errors import AppealOpen, Conflict, NotAppealable, NotFound
from db.evidence_tables import AppealRow
from db.ids import item_id, uuid7
from db.items import ItemView
from db.moderation_tables import DecisionRow
from db.review_queue import Candidate
from db.review_sources import candidate

RISK: Final = 0.9
"""An appeal's place in the queue: somebody waits for the answer, and may be right."""


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the subject says, and where the answer may be sent."""

    text: str
    contact: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether an item's verdict can be appealed against: `refusal` says in words why not."""

    refusal: str | None
    context: str
    code: str | None


def standing(session: Session, account_id: int, item: ItemView) -> Standing:
    """Whether there is something to appeal against, and whether it has been decided on appeal already."""
    context = jobs.get(session, account_id, item.job_id).context
    moderation = item.moderation
    if moderation is None or item.facts is None:
        return Standing("There is no verdict on this picture.", context, None)
    decision = moderation["decision"]
    reasons = [reason["code"] for reason in moderation["reasons"] if reason.get("verdict") == moderation["verdict"]]
    code = decision["code"] if decision is not None else next(iter(reasons), None)
    if decision is not None and _answers(session, account_id, UUID(decision["id"])):
        return Standing("The verdict was made on an appeal: it is final here.", context, code)
    if moderation["verdict"] == "reject":
        return Standing(None, context, code)
    sha256 = bytes.fromhex(item.facts["sha256"])
    if moderation["verdict"] == "review" and _approval_removed(session, account_id, item, sha256, context):
        return Standing(None, context, code)
    return Standing("Only a rejection, or an approval that was removed, can be appealed against.", context, code)


def start(
    session: Session,
    account_id: int,
    item: ItemView,
    grounds: Grounds,
    *,
    actor: str,
    moderation_id: UUID | None = None,
) -> AppealRow:
    """Open an appeal against the verdict that counts for an item, and put it to people who have not decided on the
    picture. NotAppealable; AppealOpen while there is one."""
    erasure_fence.share_lock(session, account_id)
    about = standing(session, account_id, item)
    if not session.scalar(_SHOWN, {"account_id": account_id, "job_id": item.job_id, "seq": item.seq}):
        raise NotAppealable("There is no verdict on this picture.")  # erased since the item was read
    if about.refusal is not None or item.moderation is None or item.facts is None:
        raise NotAppealable(about.refusal or "There is no verdict on this picture.")
    decision = item.moderation["decision"]
    row = AppealRow(
        id=uuid7(),
        account_id=account_id,
        sha256=bytes.fromhex(item.facts["sha256"]),
        context=about.context,
        job_id=item.job_id,
        seq=item.seq,
        moderation_id=moderation_id,
        verdict=item.moderation["verdict"],
        decision_id=None if decision is None else UUID(decision["id"]),
        code=about.code,
        policy=item.moderation["policy"],
        text=grounds.text,
        contact=grounds.contact,
        opened_by=actor,
    )
    values = {name: getattr(row, name) for name in _GIVEN}
    if session.execute(_OPEN, values).first() is None:
        raise AppealOpen("An appeal against this verdict is open already.")
    asked = Candidate(
        row.job_id, row.seq, row.sha256, row.context, "appeal", row.policy, risk=RISK,
        not_for=_deciders(session, account_id, row.sha256, row.context),
    )  # fmt: skip
    review_queue.enqueue(session, account_id, [asked])
    audit.record(session, account_id, actor, "appeal.open", str(row.id), item=item.item_id)
    return session.get_one(AppealRow, row.id)


def settle(
    session: Session, account_id: int, actor: str, sha256: bytes, context: str, verdict: str, decision_id: UUID
) -> AppealRow | None:
    """open → upheld (it is rejected) or overturned, by a person's decision on the picture; None without an appeal."""
    state = "overturned" if verdict == "approve" else "upheld"
    parameters = {"account_id": account_id, "sha256": sha256, "context": context, "state": state, "id": decision_id}
    appeal_id = session.scalar(_SETTLE, parameters)
    if appeal_id is None:
        return None
    row = session.get_one(AppealRow, appeal_id, populate_existing=True)
    audit.record(session, account_id, actor, "appeal.decide", str(row.id), state=state, decision=str(decision_id))
    outbox.emit(session, account_id, "appeal.decided", str(row.id), _told(session, row), round_=row.version)
    return row


def reopen(session: Session, account_id: int, actor: str, decision_id: UUID) -> None:
    """upheld, overturned → open: the decision that answered is taken back. Nothing where it answered no appeal."""
    appeal_id = session.scalar(_REOPEN, {"account_id": account_id, "id": decision_id})
    if appeal_id is not None:
        audit.record(session, account_id, actor, "appeal.reopen", str(appeal_id), decision=str(decision_id))


def withdraw(session: Session, account_id: int, appeal_id: UUID, *, actor: str) -> AppealRow:
    """open → withdrawn, and its task is closed, or what it was before; withdrawn twice changes nothing. Conflict when
    it was decided."""
    erasure_fence.share_lock(session, account_id)
    row = get(session, account_id, appeal_id, lock=True)
    if row.state == "open":
        session.execute(_WITHDRAW, {"id": row.id})
        picture = {"account_id": account_id, "sha256": row.sha256, "context": row.context}
        session.execute(_CLOSE_TASK, picture)
        doubt = session.execute(_IN_DOUBT, picture).first()
        if doubt is not None:  # the appeal had taken the place of the review that the machine asked for
            asked = candidate(account_id, doubt.job_id, doubt.seq, row.sha256, row.context, doubt.moderation, 0.0)
            review_queue.enqueue(session, account_id, [] if asked is None else [asked])
        audit.record(session, account_id, actor, "appeal.withdraw", str(row.id))
        session.refresh(row)
    if row.state != "withdrawn":
        raise Conflict(f"The appeal is {row.state}.")
    return row


def get(session: Session, account_id: int, appeal_id: UUID, *, lock: bool = False) -> AppealRow:
    """One appeal of the account; NotFound for another account's too."""
    query = select(AppealRow).where(AppealRow.account_id == account_id, AppealRow.id == appeal_id)
    row = session.scalar(query.with_for_update().execution_options(populate_existing=True) if lock else query)
    if row is None:
        raise NotFound("There is no such appeal.")
    return row


def newest(session: Session, account_id: int, job_id: UUID, seq: int) -> AppealRow | None:
    """The last appeal that was opened on an item."""
    query = select(AppealRow).where(
        AppealRow.account_id == account_id, AppealRow.job_id == job_id, AppealRow.seq == seq
    )
    return session.scalar(query.order_by(AppealRow.id.desc()).limit(1))


def page(
    session: Session, account_id: int, *, state: str | None = None, after: UUID | None = None, limit: int = 100
) -> list[AppealRow]:
    """The account's appeals, newest first."""
    query = select(AppealRow).where(AppealRow.account_id == account_id)
    if state is not None:
        query = query.where(AppealRow.state == state)
    if after is not None:
        query = query.where(AppealRow.id < after)
    return list(session.scalars(query.order_by(AppealRow.id.desc()).limit(limit)))


def answers(session: Session, account_id: int, rows: list[AppealRow]) -> dict[UUID, dict[str, Any]]:
    """By appeal, what the decision that answered it says; never whose it is."""
    ids = [row.answer_id for row in rows if row.answer_id is not None]
    query = select(DecisionRow).where(DecisionRow.account_id == account_id, DecisionRow.id.in_(ids))
    found = {row.id: row for row in session.scalars(query)}
    return {
        row.id: {"verdict": answer.verdict, "code": answer.code, "text": answer.text, "at": answer.created_at}
        for row in rows
        if row.answer_id is not None and (answer := found.get(row.answer_id)) is not None
    }


def _answers(session: Session, account_id: int, decision_id: UUID) -> bool:
    """Whether the decision was made on an appeal."""
    query = select(AppealRow.id).where(AppealRow.account_id == account_id, AppealRow.answer_id == decision_id)
    return session.scalar(query.limit(1)) is not None


def _approval_removed(session: Session, account_id: int, item: ItemView, sha256: bytes, context: str) -> bool:
    """The last change took an approval away: a person's was taken back, or the machine decided again."""
    last = session.execute(
        _LAST_CHANGE,
        {"account_id": account_id, "sha256": sha256, "context": context, "job_id": item.job_id, "seq": item.seq,
         "human": list(HUMAN)},
    ).first()  # fmt: skip
    return last is not None and last.was == "approve"


def _deciders(session: Session, account_id: int, sha256: bytes, context: str) -> tuple[str, ...]:
    """Everybody who has decided on the picture in this context."""
    parameters = {"account_id": account_id, "sha256": sha256, "context": context, "human": list(HUMAN)}
    return tuple(session.scalars(_DECIDERS, parameters))


def _told(session: Session, row: AppealRow) -> dict[str, Any]:
    answer = answers(session, row.account_id, [row])[row.id]
    return {
        "appeal": str(row.id),
        "item": item_id(row.job_id, row.seq),
        "moderation": None if row.moderation_id is None else str(row.moderation_id),
        "context": row.context,
        "state": row.state,
        "verdict": answer["verdict"],
        "code": answer["code"],
        "text": answer["text"],
    }


_GIVEN: Final = (
    "id", "account_id", "sha256", "context", "job_id", "seq", "moderation_id", "verdict", "decision_id", "code",
    "policy", "text", "contact", "opened_by",
)  # fmt: skip
_OPEN = text(
    f"""
    INSERT INTO appeals ({", ".join(_GIVEN)}) VALUES ({", ".join(f":{name}" for name in _GIVEN)})
    ON CONFLICT (account_id, sha256, context) WHERE state = 'open' DO NOTHING RETURNING id
    """
)
_SHOWN = text(
    """
    SELECT r.outcome = 'done' FROM jobs j JOIN results r ON r.bucket = j.bucket AND r.job_id = j.id
    WHERE j.account_id = :account_id AND j.id = :job_id AND r.seq = :seq
    """
)
_SETTLE = text(
    """
    UPDATE appeals SET state = :state, decided_at = now(), answer_id = :id, version = version + 1
    WHERE account_id = :account_id AND sha256 = :sha256 AND context = :context AND state = 'open' RETURNING id
    """
)
_REOPEN = text(
    """
    UPDATE appeals SET state = 'open', decided_at = NULL, answer_id = NULL, version = version + 1
    WHERE account_id = :account_id AND answer_id = :id RETURNING id
    """
)
_WITHDRAW = text("UPDATE appeals SET state = 'withdrawn', decided_at = now(), version = version + 1 WHERE id = :id")
_CLOSE_TASK = text(
    """
    UPDATE review_tasks SET state = 'closed', version = version + 1, lease_owner = NULL, lease_until = NULL
    WHERE account_id = :account_id AND sha256 = :sha256 AND context = :context AND reason = 'appeal' AND state = 'open'
    """
)
_IN_DOUBT = text(
    """
    SELECT r.job_id, r.seq, r.moderation FROM results r JOIN jobs j ON j.bucket = r.bucket AND j.id = r.job_id
    WHERE r.account_id = :account_id AND r.sha256 = :sha256 AND r.outcome = 'done' AND j.context = :context
      AND r.moderation ->> 'verdict' = 'review' AND NOT EXISTS (SELECT FROM reruns n WHERE n.job_id = j.id)
    ORDER BY r.created_at DESC LIMIT 1
    """
)
_DECIDERS = text(
    """
    SELECT DISTINCT actor FROM decisions
    WHERE account_id = :account_id AND sha256 = :sha256 AND context = :context AND kind = ANY(:human) ORDER BY actor
    """
)
_LAST_CHANGE = text(
    """
    SELECT CASE WHEN d.kind = ANY(:human) THEN t.verdict ELSE d.before ->> 'verdict' END AS was
    FROM decisions d LEFT JOIN decisions t ON t.id = d.takes_back AND t.account_id = d.account_id
    WHERE d.account_id = :account_id AND ((d.sha256 = :sha256 AND d.context = :context AND d.kind = ANY(:human))
      OR (d.job_id = :job_id AND d.seq = :seq AND d.kind <> ALL(:human)))
    ORDER BY d.id DESC LIMIT 1
    """
)
