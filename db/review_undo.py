"""Taking answers back: a reviewer's own last ones, for a time. What counted before counts again."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import appeals, audit, decisions, erasure_fence
from db.decisions import Decision
from db.errors import Conflict, NotFound
from db.ids import uuid7
from db.review_tables import ReviewTask
from db.review_verdicts import announce, label


def last(session: Session, account_id: int, actor: str, within_s: float) -> list[UUID]:
    """The tasks of the reviewer's newest answers that can still be taken back: those that were given together."""
    parameters = {"account_id": account_id, "actor": actor, "within_s": within_s}
    return list(session.execute(_LAST, parameters).scalars())


def undo(
    session: Session, account_id: int, actor: str, task_ids: Sequence[UUID], *, within_s: float = 900, lease_s: float
) -> list[ReviewTask]:
    """decided → open, leased to the reviewer again. All of them or none.

    NotFound for what this reviewer did not decide; Conflict when it is too long ago or somebody has looked at it since
    (a second opinion, an appeal, another decision).
    """
    erasure_fence.share_lock(session, account_id)
    undone = []
    for task_id in sorted(set(task_ids)):
        query = select(ReviewTask).where(ReviewTask.account_id == account_id, ReviewTask.id == task_id)
        task = session.scalar(query.with_for_update().execution_options(populate_existing=True))
        if task is None or task.decided_by != actor or task.state != "decided":
            raise NotFound("You decided no such review, or took it back already.")
        opinion = session.execute(_OPINION, {"task_id": task_id, "actor": actor, "within_s": within_s}).one()
        if not opinion.recent:
            raise Conflict("The decision is too old to be taken back; the picture can be decided on again.")
        _unsettle(session, account_id, actor, task, opinion.id)
        parameters = {"id": task.id, "actor": actor, "lease_s": lease_s}
        if session.execute(_REOPEN, parameters).first() is None:
            raise Conflict("The picture is in the queue again already.")
        session.refresh(task)
        if task.kind == "first":
            announce(session, account_id, task)
        undone.append(task)
    return undone


def _unsettle(session: Session, account_id: int, actor: str, task: ReviewTask, opinion_id: UUID) -> None:
    """Withdraw what the answer led to; Conflict where others have built on it."""
    if task.kind == "second":
        _end_unless_seen(session, session.scalar(_ESCALATED, {"id": task.id}))
    if task.kind == "first":
        _end_unless_seen(session, session.scalar(_SECOND, {"id": task.id}))
        _take_back(session, account_id, actor, task)
    session.execute(
        _TAKE_BACK,
        {"id": uuid7(), "opinion": opinion_id, "actor": actor},
    )


def _end_unless_seen(session: Session, follower: UUID | None) -> None:
    if follower is None:
        return
    row = session.get_one(ReviewTask, follower, populate_existing=True)
    if row.state == "decided" or row.lease_owner is not None:
        raise Conflict("Another person has the picture in hand, or has said what it is.")
    row.state, row.version = "closed", row.version + 1
    session.flush()


def _take_back(session: Session, account_id: int, actor: str, task: ReviewTask) -> None:
    newest, *earlier = session.execute(
        _DECISIONS, {"account_id": account_id, "sha256": task.sha256, "context": task.context}
    ).all()
    if newest.id != task.decision_id:
        raise Conflict("The picture was decided on again since.")
    before: Any = earlier[0] if earlier and earlier[0].verdict is not None else None
    made = Decision(
        job_id=task.job_id,
        seq=task.seq,
        sha256=bytes(task.sha256),
        context=task.context,
        kind=newest.kind if before is None else before.kind,
        verdict=None if before is None else before.verdict,
        actor=actor,
        code=None if before is None else before.code,
        text=None if before is None else before.text,
        policy=None if before is None else before.policy,
        takes_back=newest.id,
    )
    decisions.append(session, account_id, [made])
    label(session, task, actor, made.verdict)
    appeals.reopen(session, account_id, actor, newest.id)
    audit.record(session, account_id, actor, "review.undo", str(task.id), decision=str(newest.id))


_LAST = text(
    """
    WITH mine AS (
      SELECT o.task_id, o.created_at FROM review_opinions o JOIN review_tasks t ON t.id = o.task_id
      WHERE o.account_id = :account_id AND o.actor = :actor AND o.verdict IS NOT NULL
        AND o.created_at > now() - make_interval(secs => :within_s)
        AND t.state = 'decided' AND t.decided_by = :actor
        AND NOT EXISTS (SELECT FROM review_opinions b WHERE b.takes_back = o.id))
    SELECT task_id FROM mine WHERE created_at = (SELECT max(created_at) FROM mine) ORDER BY task_id
    """
)
_OPINION = text(
    """
    SELECT id, created_at > now() - make_interval(secs => :within_s) AS recent FROM review_opinions
    WHERE task_id = :task_id AND actor = :actor AND verdict IS NOT NULL ORDER BY id DESC LIMIT 1
    """
)
_TAKE_BACK = text(
    """
    INSERT INTO review_opinions (id, account_id, task_id, sha256, context, kind, actor, takes_back)
    SELECT :id, account_id, task_id, sha256, context, kind, :actor, id FROM review_opinions WHERE id = :opinion
    """
)
_REOPEN = text(
    """
    UPDATE review_tasks t SET state = 'open', verdict = NULL, decided_by = NULL, decided_at = NULL, decision_id = NULL,
      version = version + 1, lease_owner = :actor, lease_until = now() + make_interval(secs => :lease_s)
    WHERE id = :id AND NOT EXISTS (
      SELECT FROM review_tasks o WHERE o.account_id = t.account_id AND o.sha256 = t.sha256 AND o.context = t.context
        AND o.kind = t.kind AND o.kind <> 'gold' AND o.state = 'open')
    RETURNING id
    """
)
_SECOND = text("SELECT id FROM review_tasks WHERE parent = :id AND state <> 'closed' FOR UPDATE")
_ESCALATED = text(
    """
    SELECT e.id FROM review_tasks t JOIN review_tasks e ON e.account_id = t.account_id AND e.sha256 = t.sha256
      AND e.context = t.context AND e.kind = 'first' AND e.reason = 'escalated' AND e.created_at >= t.decided_at
    WHERE t.id = :id AND e.state <> 'closed' FOR UPDATE OF e
    """
)
_DECISIONS = text(
    """
    SELECT id, verdict, kind, code, text, policy FROM decisions
    WHERE account_id = :account_id AND sha256 = :sha256 AND context = :context AND kind IN ('review', 'appeal')
    ORDER BY id DESC LIMIT 2
    """
)
