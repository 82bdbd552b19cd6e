"""The queue as people see it: tasks with what helps to decide, counts, and lists. Changes nothing.

Who judges an audit is not told what the machine says of the picture, and who gives a second opinion not what the first
one was: both would only be repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import review_reasons
from db.ids import item_id
from db.review_leases import ANY, Filter, matching
from db.review_tables import ReviewTask
from db.review_verdicts import NEAR

NEAR_SHOWN: Final = 30
_RECALLED: Final = ("appeal", "banned_after_approval")


@dataclass(frozen=True)
class NearView:
    """An open near-duplicate: its own task, and the PDQ distance in bits."""

    id: UUID
    item_id: str
    distance: int


@dataclass(frozen=True)
class CommentView:
    """What a reviewer remarked."""

    by: str
    text: str
    at: datetime


@dataclass(frozen=True)
class TaskView:
    """A task as a reviewer sees it. `moderation`: what the machine said; None where that is not to be known.
    `decision`: what an appeal or a ban is against; `appeal`: its words. `codes`: reasons of the policy to reject
    for."""

    id: UUID
    version: int
    state: str
    level: str
    reason: str
    policy: str | None
    context: str
    category: str | None
    item_id: str
    sha256: str
    items: int
    also: list[str]
    product_id: str | None
    filename: str | None
    waiting_since: datetime
    lease_until: datetime | None
    held_by: str | None
    verdict: str | None
    decided_by: str | None
    decided_at: datetime | None
    tags: list[dict[str, Any]]
    moderation: dict[str, Any] | None
    decision: dict[str, Any] | None
    appeal: str | None
    codes: list[dict[str, str]]
    comments: list[CommentView]
    near: list[NearView]


@dataclass(frozen=True)
class Count:
    """Tasks of one kind that wait: how many, how many of them somebody holds, and since when the oldest waits."""

    level: str
    reason: str
    policy: str | None
    context: str
    open: int
    held: int
    oldest: datetime


def views(session: Session, account_id: int, tasks: Sequence[ReviewTask], *, near: bool = True) -> list[TaskView]:
    """These tasks with all that is known of their pictures; in their order."""
    if not tasks:
        return []
    parameters = {"account_id": account_id, "ids": [task.id for task in tasks]}
    more = {row.id: row for row in session.execute(_MORE, parameters)}
    comments: dict[UUID, list[CommentView]] = {}
    for row in session.execute(_COMMENTS, parameters):
        comments.setdefault(row.task_id, []).append(CommentView(row.actor, row.text, row.created_at))
    alike: dict[UUID, list[NearView]] = {}
    if near:
        looked_for = {**parameters, "near": NEAR, "limit": NEAR_SHOWN}
        for row in session.execute(_NEAR, looked_for):
            found = NearView(row.other, item_id(row.job_id, row.seq), row.distance)
            alike.setdefault(row.id, []).append(found)
    reasons = review_reasons.offered(session, account_id, tasks)
    codes = {key: [{"code": code, "text": words} for code, words in of.items()] for key, of in reasons.items()}
    return [_view(task, more[task.id], comments, alike, codes[task.policy, task.job_id]) for task in tasks]


def _view(
    task: ReviewTask,
    row: Any,
    comments: Mapping[UUID, list[CommentView]],
    alike: Mapping[UUID, list[NearView]],
    codes: list[dict[str, str]],
) -> TaskView:
    recalled = task.reason in _RECALLED
    return TaskView(
        id=task.id,
        version=task.version,
        state=task.state,
        level=task.level,
        reason=task.reason,
        policy=task.policy,
        context=task.context,
        category=task.category if task.category is not None else row.category,
        item_id=item_id(task.job_id, task.seq),
        sha256=bytes(task.sha256).hex(),
        items=task.items,
        also=list(task.also),
        product_id=row.product_id,
        filename=row.filename,
        waiting_since=task.created_at,
        lease_until=task.lease_until,
        held_by=task.lease_owner if row.held else None,
        verdict=task.verdict,
        decided_by=task.decided_by,
        decided_at=task.decided_at,
        tags=row.tags or [],
        moderation=None if task.reason == "audit" else row.moderation,
        decision=row.decision if recalled else None,
        appeal=row.appeal if recalled else None,
        codes=codes,
        comments=[] if task.kind == "second" else comments.get(task.id, []),
        near=alike.get(task.id, []),
    )


def page(
    session: Session,
    account_id: int,
    *,
    state: str = "open",
    which: Filter = ANY,
    level: str | None = None,
    before: UUID | None = None,
    limit: int = 100,
) -> list[ReviewTask]:
    """Tasks of the line, newest first, from the one before `before` on. Known answers and second opinions are not
    shown: a list must not tell which they are."""
    parameters = {"account_id": account_id, "state": state, "level": level, "before": before, "limit": limit}
    ids = session.execute(_PAGE, {**parameters, **asdict(which)}).scalars().all()
    query = select(ReviewTask).where(ReviewTask.account_id == account_id, ReviewTask.id.in_(ids))
    return list(session.scalars(query.order_by(ReviewTask.id.desc())))


def counts(session: Session, account_id: int) -> list[Count]:
    """What waits, by level, reason, policy and context; second opinions count as what they look like."""
    rows = session.execute(_COUNTS, {"account_id": account_id})
    return [Count(*row) for row in rows]


_MORE = text(
    """
    SELECT t.id, t.lease_until > now() AS held, r.tags, r.moderation, i.product_id, i.filename, i.category,
      CASE WHEN d.id IS NOT NULL THEN jsonb_build_object('id', d.id, 'verdict', d.verdict, 'code', d.code,
        'text', d.text, 'kind', d.kind, 'at', d.created_at) END AS decision,
      (SELECT a.text FROM appeals a WHERE a.account_id = t.account_id AND a.sha256 = t.sha256
        AND a.context = t.context AND a.state = 'open' ORDER BY a.id DESC LIMIT 1) AS appeal
    FROM review_tasks t
    LEFT JOIN jobs j ON j.id = t.job_id AND j.account_id = t.account_id
    LEFT JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id AND i.seq = t.seq
    LEFT JOIN results r ON r.bucket = j.bucket AND r.job_id = j.id AND r.seq = t.seq
    LEFT JOIN human_decisions d ON d.account_id = t.account_id AND d.sha256 = t.sha256 AND d.context = t.context
    WHERE t.account_id = :account_id AND t.id = ANY(:ids)
    """
)
_COMMENTS = text(
    """
    SELECT task_id, actor, text, created_at FROM review_comments
    WHERE account_id = :account_id AND task_id = ANY(:ids) ORDER BY id
    """
)
# Of what is open the nearest in the queue: bounded for any length of it.
_NEAR = text(
    """
    SELECT t.id, n.id AS other, n.job_id, n.seq, n.distance
    FROM review_tasks t CROSS JOIN LATERAL (
      SELECT k.id, k.job_id, k.seq, bit_count(k.pdq # t.pdq) AS distance FROM review_tasks k
      WHERE k.account_id = t.account_id AND k.context = t.context AND k.state = 'open' AND k.kind = 'first'
        AND k.level = t.level AND k.id <> t.id AND k.pdq IS NOT NULL AND bit_count(k.pdq # t.pdq) <= :near
        AND (k.lease_owner = t.lease_owner OR coalesce(k.lease_until, '-infinity') <= now())
        AND coalesce(t.lease_owner, '') <> ALL(k.not_for)
      ORDER BY distance, k.rank LIMIT :limit) n
    WHERE t.account_id = :account_id AND t.id = ANY(:ids) AND t.state = 'open' AND t.kind = 'first'
      AND t.pdq IS NOT NULL
    """
)
_PAGE = text(
    f"""
    SELECT t.id FROM review_tasks t
    WHERE t.account_id = :account_id AND t.state = :state AND t.kind = 'first'
      AND (CAST(:level AS text) IS NULL OR t.level = :level)
      AND (CAST(:before AS uuid) IS NULL OR t.id < :before) AND {matching("t")}
    ORDER BY t.id DESC LIMIT :limit
    """
)
_COUNTS = text(
    """
    SELECT level, reason, policy, context, count(*), count(*) FILTER (WHERE lease_until > now()), min(created_at)
    FROM review_tasks WHERE account_id = :account_id AND state = 'open' AND kind <> 'gold'
    GROUP BY level, reason, policy, context ORDER BY level, count(*) DESC, reason, policy, context
    """
)
