"""Uploads for moderation: one picture each, with whose it is and where it is to be shown. Submitted and read here;
what is said of them is written by `db.moderation_state`.

An upload is a job of one item in the interactive lane, which the list of jobs leaves out: so it is leased, retried,
recorded and reviewed as everything else is.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import items, jobs, policy, policy_assignments, registry
from db.errors import NotFound
from db.ids import uuid7
from db.items import ItemView
from db.jobs import JobSpec, NewItem
from db.moderation_tables import ModerationRow


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for beside the picture. `policy`: the name of one, else that of the account and context."""

    user: str | None = None
    product: str | None = None
    context: str = ""
    policy: str | None = None


def models(session: Session) -> dict[str, str]:
    """The models ({task: "name@version"}) that an upload needs by the policy of the whole installation; those of an
    account's or a context's own policy may be more."""
    document = policy_assignments.pinned(session, 0, "")
    active = {task: registry.active(session, task) for task in policy.validate(document).tasks(("moderation",))}
    return {task: model.ref for task, model in active.items() if model is not None}


def submit(session: Session, account_id: int, asked: Asked, item: NewItem, *, per_day: int = 0) -> ModerationRow:
    """Accept an upload: nothing → `pending`; QuotaExceeded (`per_day` as in `db.jobs.submit`)."""
    spec = JobSpec(("moderation",), "interactive", context=asked.context, policy=asked.policy, listed=False)
    job = jobs.submit(session, account_id, spec, [item], max_items=1, per_day=per_day)
    row = ModerationRow(
        id=uuid7(),
        account_id=account_id,
        job_id=job.id,
        seq=0,
        client_id=item.client_id,
        subject_user=asked.user,
        subject_product=asked.product,
        context=asked.context,
        created_at=job.created_at,
    )
    session.add(row)
    session.flush()
    return row


def get(session: Session, account_id: int, moderation_id: UUID) -> tuple[ModerationRow, ItemView]:
    """An upload of the account with its item; NotFound for another account's too."""
    query = select(ModerationRow).where(ModerationRow.account_id == account_id, ModerationRow.id == moderation_id)
    row = session.scalar(query)
    item = None if row is None else items.at(session, account_id, row.job_id, row.seq)
    if row is None or item is None:
        raise NotFound("There is no such moderation.")
    return row, item


def is_open(session: Session, account_id: int, moderation_id: UUID) -> bool:
    """Whether it still waits for its automatic verdict: asked often, by those who wait."""
    query = select(ModerationRow.state).where(ModerationRow.account_id == account_id, ModerationRow.id == moderation_id)
    return session.scalar(query) == "pending"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which uploads a list shows; None: whatever it is."""

    state: str | None = None
    verdict: str | None = None
    user: str | None = None
    product: str | None = None
    context: str | None = None


def page(
    session: Session, account_id: int, wanted: Wanted, *, after: UUID | None = None, limit: int = 100
) -> list[ModerationRow]:
    """The account's uploads, newest first, from the one before `after` on."""
    query = select(ModerationRow).where(ModerationRow.account_id == account_id)
    columns = {
        "state": ModerationRow.state,
        "verdict": ModerationRow.verdict,
        "user": ModerationRow.subject_user,
        "product": ModerationRow.subject_product,
        "context": ModerationRow.context,
    }
    for name, column in columns.items():
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        query = query.where(ModerationRow.id < after)
    return list(session.scalars(query.order_by(ModerationRow.id.desc()).limit(limit)))
