"""What reviewers say of tasks: decide, alone or with near-duplicates, and take it back.

    first opinion   → a row in `decisions` · the label group `verdict` · event review.decided · now and then a second
                      opinion is asked for
    second opinion  → compared; when the two disagree, a curator decides (reason `escalated`)
    gold            → compared with the known answer; decides nothing

All of them are kept as opinions (`review_opinions`), from which `db.review_quality` counts. Leases: `db.review_leases`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import appeals, audit, decisions, erasure_fence, labels, outbox, review_queue, review_reasons
from db.decisions import Decision
from db.errors import DbError
from db.ids import item_id, uuid7
from db.labels import VERDICT, Said, Subject
from db.review_leases import hold, remark
from db.review_queue import Candidate
from db.review_tables import ReviewTask

NEAR: Final = 31
"""PDQ distance, of 256 bits, up to which pictures are taken for the same (ThreatExchange's recommendation)."""


@dataclass(frozen=True)
class Answer:
    """What a reviewer says of a task that he holds in this version. A rejection has a `code`, snake_case; `text` is for
    the person concerned; without it, the policy's words for the code are taken. `near`: open near-duplicates that he
    saw beside it, of which he says the same."""

    task_id: UUID
    version: int
    verdict: str
    code: str | None = None
    text: str | None = None
    comment: str | None = None
    near: tuple[UUID, ...] = ()


@dataclass(frozen=True)
class Decided:
    """Tasks that ended by one answer: its own and its near-duplicates; `left`: near-duplicates that did not."""

    tasks: tuple[ReviewTask, ...]
    left: tuple[UUID, ...] = ()


@dataclass
class Answers:
    """What came of many answers: those that were taken, and by task why the others were not."""

    decided: list[Decided] = field(default_factory=list)
    refused: dict[UUID, DbError] = field(default_factory=dict)


def decide(session: Session, account_id: int, actor: str, answer: Answer, *, second_share: float = 0.0) -> Decided:
    """Take one answer. `second_share` of first opinions is put to another reviewer as well. NotFound, StaleReview."""
    erasure_fence.share_lock(session, account_id)
    return _decide(session, account_id, actor, answer, second_share)


def _decide(session: Session, account_id: int, actor: str, answer: Answer, second_share: float) -> Decided:
    task = hold(session, account_id, actor, answer.task_id, answer.version)
    near = _near(session, account_id, actor, task, answer.near)
    if answer.comment:
        remark(session, account_id, actor, task, answer.comment)
    for each in (task, *near):
        _settle(session, account_id, actor, each, answer, second_share)
    taken = {each.id for each in near}
    return Decided((task, *near), tuple(each for each in answer.near if each not in taken))


def decide_many(
    session: Session, account_id: int, actor: str, answers: Sequence[Answer], *, second_share: float = 0.0
) -> Answers:
    """Take every answer that can be taken, in the order of their ids, so that two reviewers never wait for each
    other."""
    erasure_fence.share_lock(session, account_id)
    found = Answers()
    ended: set[UUID] = set()
    own = {answer.task_id for answer in answers}  # what is said of a task itself counts, not what is said of another
    for answer in sorted(answers, key=lambda answer: answer.task_id):
        if answer.task_id in ended:
            continue  # named twice
        near = tuple(each for each in answer.near if each not in own)
        try:
            made = _decide(session, account_id, actor, replace(answer, near=near), second_share)
            ended |= {task.id for task in made.tasks}
            found.decided.append(made)
        except DbError as error:
            found.refused[answer.task_id] = error
    return found


def _settle(
    session: Session, account_id: int, actor: str, task: ReviewTask, answer: Answer, second_share: float
) -> None:
    decision_id = None
    if task.kind == "first":
        if answer.verdict == "reject" and answer.code and not answer.text:
            # Of each task's own policy: what the person concerned is told must not depend on who decided.
            answer = replace(answer, text=review_reasons.words(session, account_id, task, answer.code))
        decision_id = _decided(session, account_id, actor, task, answer)
    values = {
        "id": uuid7(),
        "account_id": account_id,
        "task_id": task.id,
        "sha256": task.sha256,
        "context": task.context,
        "kind": task.kind,
        "actor": actor,
        "verdict": answer.verdict,
        "expected": task.expected,
        "decision_id": decision_id,
    }
    session.execute(_OPINION, values)
    session.execute(_END, {"id": task.id, "verdict": answer.verdict, "actor": actor, "decision_id": decision_id})
    session.refresh(task)
    if task.kind == "first":
        announce(session, account_id, task, answer.code, answer.text)
        if wants_second(task, second_share):
            session.execute(_ASK_AGAIN, {"id": uuid7(), "task_id": task.id, "actor": actor})
    elif task.kind == "second":
        _compare(session, account_id, actor, task)


def _decided(session: Session, account_id: int, actor: str, task: ReviewTask, answer: Answer) -> UUID:
    made = Decision(
        job_id=task.job_id,
        seq=task.seq,
        sha256=bytes(task.sha256),
        context=task.context,
        kind="appeal" if task.reason == "appeal" else "review",
        verdict=answer.verdict,
        actor=actor,
        code=answer.code,
        text=answer.text,
        policy=task.policy,
        comment=answer.comment,
    )
    (decision_id,) = decisions.append(session, account_id, [made])
    label(session, task, actor, answer.verdict)
    appeals.settle(session, account_id, actor, made.sha256, made.context, answer.verdict, decision_id)
    return decision_id


def label(session: Session, task: ReviewTask, actor: str, verdict: str | None) -> None:
    """Say it as a label too, from which data sets are made; None takes it back."""
    word = Said(VERDICT, "exclusive", None if verdict is None else (verdict,))
    about = Subject(task.account_id, task.job_id, task.seq, bytes(task.sha256), None)
    labels.record(session, about, [word], source="decision", actor=actor)


def announce(
    session: Session, account_id: int, task: ReviewTask, code: str | None = None, words: str | None = None
) -> None:
    """Emit review.decided as the task stands; a verdict of null: what was decided is taken back."""
    payload = {
        "review": str(task.id),
        "item": item_id(task.job_id, task.seq),
        "sha256": bytes(task.sha256).hex(),
        "context": task.context,
        "reason": task.reason,
        "verdict": task.verdict,
        "code": code,
        "text": words,
        "decision": None if task.decision_id is None else str(task.decision_id),
    }
    outbox.emit(session, account_id, "review.decided", str(task.id), payload, round_=task.version)


def wants_second(task: ReviewTask, share: float) -> bool:
    """Whether a second reviewer is asked; not of what a curator or an appeal has decided. Drawn by the task's random
    id, so that the first reviewer cannot tell and a repeated transaction draws the same."""
    if task.level == "curator" or task.reason == "appeal":
        return False
    digest = hashlib.sha256(b"second\0" + task.id.bytes).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64 < share


def _compare(session: Session, account_id: int, actor: str, task: ReviewTask) -> None:
    first = session.get_one(ReviewTask, task.parent)
    agreed = first.verdict == task.verdict
    audit.record(session, account_id, actor, "review.compare", str(task.id), agrees=agreed)
    if agreed or first.decided_by is None:
        return
    asked = Candidate(
        task.job_id, task.seq, bytes(task.sha256), task.context, "escalated", task.policy, task.category,
        risk=task.risk, exposure=task.exposure, not_for=(first.decided_by, actor), level="curator",
    )  # fmt: skip
    review_queue.enqueue(session, account_id, [asked])


def _near(session: Session, account_id: int, actor: str, task: ReviewTask, wanted: Sequence[UUID]) -> list[ReviewTask]:
    """Those of the wanted tasks that are open near-duplicates of this one and in nobody else's hand, locked."""
    if not wanted or task.kind == "gold":
        return []
    parameters = {"account_id": account_id, "id": task.id, "ids": sorted(wanted), "actor": actor, "near": NEAR}
    ids = session.execute(_NEAR, parameters).scalars().all()
    return [session.get_one(ReviewTask, each, populate_existing=True) for each in ids]


_OPINION = text(
    """
    INSERT INTO review_opinions (id, account_id, task_id, sha256, context, kind, actor, verdict, expected, decision_id)
    VALUES (:id, :account_id, :task_id, :sha256, :context, :kind, :actor, :verdict, :expected, :decision_id)
    """
)
_END = text(
    """
    UPDATE review_tasks SET state = 'decided', verdict = :verdict, decided_by = :actor, decided_at = now(),
      decision_id = :decision_id, version = version + 1, lease_owner = NULL, lease_until = NULL
    WHERE id = :id
    """
)
# open, a second time, for anybody but the first reviewer and those he was not for
_ASK_AGAIN = text(
    """
    INSERT INTO review_tasks (id, account_id, sha256, context, kind, level, reason, policy, category, risk, exposure,
      rank, job_id, seq, items, also, pdq, not_for, parent)
    SELECT :id, account_id, sha256, context, 'second', level, reason, policy, category, risk, exposure, rank, job_id,
      seq, items, also, pdq, not_for || CAST(:actor AS text), id
    FROM review_tasks WHERE id = :task_id
    ON CONFLICT (account_id, sha256, context, kind) WHERE state = 'open' AND kind <> 'gold' DO NOTHING
    """
)
_NEAR = text(
    """
    SELECT n.id FROM review_tasks t JOIN review_tasks n ON n.account_id = t.account_id AND n.context = t.context
    WHERE t.account_id = :account_id AND t.id = :id AND n.id = ANY(:ids) AND n.id <> t.id AND n.kind = t.kind
      AND n.state = 'open' AND n.level = t.level AND :actor <> ALL(n.not_for)
      AND (n.lease_owner = :actor OR coalesce(n.lease_until, '-infinity') <= now())
      AND bit_count(n.pdq # t.pdq) <= :near
    ORDER BY n.id FOR UPDATE OF n SKIP LOCKED
    """
)
