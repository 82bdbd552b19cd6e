"""Leases of review tasks: claim, give back, skip, escalate. What people decide is in `db.review_verdicts`.

    open ──claim──► open, leased to one reviewer until a time ──► decided, or back by release, skip, or the time running
    out; escalate: back for curators only

Every move raises `version`: who holds an older one, or whose lease has run out, changes nothing (StaleReview). Nobody
has to take leases back: a claim passes over those that hold and takes those that have run out.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, erasure_fence, review_gold
from db.errors import Conflict, NotFound
from db.ids import uuid7
from db.review_tables import ReviewComment, ReviewTask

IN_HAND: Final = 100
"""Tasks that one reviewer holds at most."""
LEVELS: Final = ("reviewer", "curator")


class StaleReview(Conflict):
    """The task has moved on since this version, or the reviewer does not hold it, or no more: claim again."""

    code = "stale_review"


@dataclass(frozen=True)
class Filter:
    """Which tasks; None: any. `policy` is a name, with or without its version."""

    policy: str | None = None
    reason: str | None = None
    category: str | None = None
    context: str | None = None


ANY: Final = Filter()


def claim(
    session: Session,
    account_id: int,
    actor: str,
    *,
    count: int = 1,
    which: Filter = ANY,
    curator: bool = False,
    lease_s: float = 600,
    gold_share: float = 0.0,
) -> list[ReviewTask]:
    """Lease the next tasks to `actor`, in the order of the queue; no two reviewers get the same. A curator gets first
    what was escalated. With `gold_share`, pictures with a known answer take the place of so many, if there are any
    that the reviewer has not seen."""
    if gold_share > 0:
        erasure_fence.share_lock(session, account_id)
    held = session.execute(_HELD, {"account_id": account_id, "actor": actor}).scalar_one()
    wanted = min(count, IN_HAND - held)
    ids: list[UUID] = []
    for level in reversed(LEVELS) if curator else LEVELS[:1]:
        if len(ids) < wanted:
            parameters = {"account_id": account_id, "actor": actor, "level": level, "limit": wanted - len(ids)}
            ids += session.execute(_NEXT, {**parameters, **asdict(which)}).scalars()
    if not ids:
        return []  # a known picture alone would be seen through
    known = sum(random.random() < gold_share for _ in ids) if gold_share > 0 else 0
    gold = review_gold.give(session, account_id, actor, known, asdict(which))
    chosen = ids[: len(ids) - len(gold)] + gold
    random.shuffle(gold)
    for each in gold:  # anywhere among the others
        chosen.remove(each)
        chosen.insert(random.randint(0, len(chosen)), each)
    session.execute(_LEASE, {"account_id": account_id, "ids": chosen, "actor": actor, "lease_s": lease_s})
    found = {task.id: task for task in _tasks(session, account_id, chosen)}
    return [found[each] for each in chosen]


def held(session: Session, account_id: int, actor: str) -> list[ReviewTask]:
    """What the reviewer has in hand, in the order of the queue."""
    ids = session.execute(_IN_HAND, {"account_id": account_id, "actor": actor}).scalars().all()
    found = {task.id: task for task in _tasks(session, account_id, ids)}
    return [found[each] for each in ids]


def get(session: Session, account_id: int, task_id: UUID, actor: str) -> ReviewTask:
    """A task that this reviewer may see; NotFound."""
    task = session.scalar(select(ReviewTask).where(ReviewTask.account_id == account_id, ReviewTask.id == task_id))
    if task is None or task.only_for not in (None, actor):
        raise NotFound("There is no such review.")
    return task


def hold(session: Session, account_id: int, actor: str, task_id: UUID, version: int) -> ReviewTask:
    """Lock a task that `actor` has leased in this version; NotFound, StaleReview."""
    row = session.execute(_LOCK, {"account_id": account_id, "id": task_id, "actor": actor}).first()
    if row is None:
        raise NotFound("There is no such review.")
    task = session.get_one(ReviewTask, task_id, populate_existing=True)
    if task.state != "open":
        raise StaleReview("The review has ended.")
    others = row.holds and task.lease_owner != actor
    if task.version != version:
        raise StaleReview(f"The review is at version {task.version}{', and somebody else holds it' if others else ''}.")
    if others:
        raise StaleReview("Somebody else holds it; claim another review.")
    if task.lease_owner != actor:
        raise StaleReview("You do not hold it; claim the review first.")
    if not row.holds:
        raise StaleReview("The lease has run out; claim the review again.")
    return task


def release(session: Session, account_id: int, actor: str, task_id: UUID, version: int) -> ReviewTask:
    """Give a task back as it was."""
    task = hold(session, account_id, actor, task_id, version)
    _back(task)
    session.flush()
    return task


def skip(
    session: Session, account_id: int, actor: str, task_id: UUID, version: int, *, pause_s: float = 86_400
) -> ReviewTask:
    """Give a task back; for `pause_s` it goes to others only."""
    task = hold(session, account_id, actor, task_id, version)
    _back(task)
    session.flush()
    session.execute(_SKIP, {"id": task.id, "actor": actor, "pause_s": pause_s})
    session.refresh(task)
    return task


def escalate(
    session: Session, account_id: int, actor: str, task_id: UUID, version: int, comment: str | None = None
) -> ReviewTask:
    """Give a task to curators: this reviewer does not get it again. Conflict for one that is a curator's already."""
    task = hold(session, account_id, actor, task_id, version)
    if task.level == "curator":
        raise Conflict("The review is with the curators already.")
    _back(task)
    task.level = "curator"
    task.not_for = [*task.not_for, actor]
    session.flush()
    if comment:
        remark(session, account_id, actor, task, comment)
    if task.kind != "gold":
        audit.record(session, account_id, actor, "review.escalate", str(task.id))
    return task


def remark(session: Session, account_id: int, actor: str, task: ReviewTask, words: str) -> ReviewComment:
    """Add a comment to a task."""
    values = {"id": uuid7(), "account_id": account_id, "task_id": task.id, "actor": actor, "text": words}
    session.execute(_COMMENT, values)
    return session.get_one(ReviewComment, values["id"])


def _back(task: ReviewTask) -> None:
    task.lease_owner = task.lease_until = None
    task.version += 1
    if task.kind == "gold":
        task.state = "closed"  # it was made for this one reviewer


def _tasks(session: Session, account_id: int, ids: Sequence[UUID]) -> Sequence[ReviewTask]:
    query = select(ReviewTask).where(ReviewTask.account_id == account_id, ReviewTask.id.in_(ids))
    return session.scalars(query.execution_options(populate_existing=True)).all()


def matching(alias: str) -> str:
    """SQL of a Filter's conditions on tasks of that alias; parameters are named as its fields."""
    conditions = [
        f"(CAST(:{name} AS text) IS NULL OR {alias}.{name} = :{name})" for name in ("reason", "category", "context")
    ]
    policy = f"""(CAST(:policy AS text) IS NULL OR {alias}.policy = :policy
      OR starts_with({alias}.policy, CAST(:policy AS text) || '@'))"""
    return " AND ".join((*conditions, policy))


_HELD = text(
    """
    SELECT count(*) FROM review_tasks
    WHERE account_id = :account_id AND lease_owner = :actor AND lease_until > now() AND state = 'open'
    """
)
_IN_HAND = text(
    """
    SELECT id FROM review_tasks
    WHERE account_id = :account_id AND lease_owner = :actor AND lease_until > now() AND state = 'open'
    ORDER BY rank, id
    """
)
_NEXT = text(
    f"""
    SELECT t.id FROM review_tasks t
    WHERE t.account_id = :account_id AND t.state = 'open' AND t.level = :level AND t.kind <> 'gold'
      AND coalesce(t.lease_until, '-infinity') <= now() AND :actor <> ALL(t.not_for)
      AND coalesce(CAST(t.skips ->> :actor AS timestamptz), '-infinity') <= now() AND {matching("t")}
    ORDER BY t.rank, t.id LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)
_LEASE = text(
    """
    UPDATE review_tasks SET lease_owner = :actor, lease_until = now() + make_interval(secs => :lease_s),
      version = version + 1
    WHERE account_id = :account_id AND id = ANY(:ids)
    """
)
_LOCK = text(
    """
    SELECT coalesce(lease_until > now(), false) AS holds FROM review_tasks
    WHERE account_id = :account_id AND id = :id AND (only_for IS NULL OR only_for = :actor) FOR UPDATE
    """
)
_SKIP = text(
    """
    UPDATE review_tasks SET skips = skips || jsonb_build_object(CAST(:actor AS text),
      now() + make_interval(secs => :pause_s))
    WHERE id = :id
    """
)
_COMMENT = text(
    """
    INSERT INTO review_comments (id, account_id, task_id, actor, text)
    VALUES (:id, :account_id, :task_id, :actor, :text)
    """
)
