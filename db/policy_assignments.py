"""Which policy decides where: assignments to an account (or all) in a context (or all). The most specific wins:

    account and context · account · context · neither (the installation's default)

Rows are only added: the newest of an account and a context counts, older ones are its history.
"""

from typing import Any

from sqlalchemy import func, or_, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from db import audit, locks, policy, policy_document
from db.errors import Conflict, NotFound
from db.policy_tables import PolicyAssignment, PolicyVersion


class UnknownPolicy(Conflict):
    """A job asks for a policy that has no active version, or does not exist, or is another account's."""

    code = "unknown_policy"


def assign(
    session: Session, account_id: int | None, context: str | None, name: str | None, *, actor: str
) -> PolicyAssignment | None:
    """From now on `name` decides for the account (None: all) in the context (None: all); `name` None takes back what
    was assigned there. None when there was nothing to take back. Raises NotFound, and Conflict without an active
    version."""
    locks.lock(session, "policy-assignment", account_id, context)
    if name is not None:
        locks.lock(session, "policy", name)  # so that it is not retired meanwhile
        _require_active(session, account_id, name)
    before = session.scalar(
        select(PolicyAssignment)
        .where(
            PolicyAssignment.account_id.is_not_distinct_from(account_id),
            PolicyAssignment.context.is_not_distinct_from(context),
        )
        .order_by(PolicyAssignment.id.desc())
        .limit(1)
    )
    current = before.policy if before else None
    if current == name:
        return before if name is not None else None
    row = PolicyAssignment(account_id=account_id, context=context, policy=name, actor=actor, created_at=func.now())
    session.add(row)
    session.flush()
    where = f"{'*' if account_id is None else account_id}/{'*' if context is None else context}"
    audit.record(session, account_id, actor, "policy.assign", where, policy=name, replaced=current)
    session.refresh(row)
    return row


def current(session: Session, account_id: int | None) -> list[PolicyAssignment]:
    """What counts for an account: its own assignments and the installation's, the most specific first; for None the
    installation's only."""
    query = (
        select(PolicyAssignment)
        .where(_concerns(account_id))
        .ext(distinct_on(PolicyAssignment.account_id, PolicyAssignment.context))
        .order_by(PolicyAssignment.account_id, PolicyAssignment.context, PolicyAssignment.id.desc())
    )
    rows = [row for row in session.scalars(query) if row.policy is not None]
    return sorted(rows, key=lambda row: (row.account_id is None, row.context is None, row.context or ""))


def history(session: Session, account_id: int | None, limit: int = 100) -> list[PolicyAssignment]:
    """All that was assigned and taken back for an account or the whole installation, newest first."""
    query = select(PolicyAssignment).where(_concerns(account_id)).order_by(PolicyAssignment.id.desc())
    return list(session.scalars(query.limit(limit)))


def deciding(session: Session, account_id: int | None, context: str = "") -> PolicyVersion | None:
    """The active version that decides on an account's pictures in a context; None where nothing is assigned."""
    id_ = session.scalar(_DECIDING, {"account_id": account_id, "context": context})
    return None if id_ is None else session.get_one(PolicyVersion, id_)


def deciding_name(session: Session, account_id: int | None, context: str | None) -> str | None:
    """The policy that decides where nothing more specific than this account (None: all) and context (None: all) is
    assigned; None: people look at everything."""
    if context is not None:
        found = deciding(session, account_id, context)
        return None if found is None else found.name
    return next((row.policy for row in current(session, account_id) if row.context is None), None)


def pinned(session: Session, account_id: int, context: str, name: str | None = None) -> dict[str, Any]:
    """The document that a new job pins: of the policy asked for by name, else of the one that decides there. Raises
    UnknownPolicy."""
    if name is None:
        found = deciding(session, account_id, context)
        return dict(policy.NO_POLICY if found is None else found.document)
    asked = _active(session, account_id, name)
    if asked is None:
        raise UnknownPolicy("There is no active policy of this name.")
    return asked.document


def everywhere(session: Session) -> list[tuple[str | None, str | None, str]]:
    """What counts now for anybody, for the operator: (account's name, context, policy), the installation's last."""
    return [(row.account, row.context, row.policy) for row in session.execute(_EVERYWHERE)]


def assigned_to(session: Session, owner: int | None, name: str) -> list[str]:
    """Where a policy decides, in words; of an account's policy the owner's places, of the installation's all."""
    rows = session.execute(_PLACES, {"name": name, "owner": owner})
    return [
        f"{f'account {row.account}' if row.account else 'all accounts'}"
        f"{'' if row.context is None else f' in context {row.context!r}'}"
        for row in rows
    ]


def _require_active(session: Session, account_id: int | None, name: str) -> None:
    if _active(session, account_id, name) is not None:
        return
    known = policy_document.is_name(name) and session.scalar(
        select(PolicyVersion.id)
        .where(PolicyVersion.name == name, or_(_whose(account_id), PolicyVersion.account_id.is_(None)))
        .limit(1)
    )
    if not known:
        raise NotFound("There is no such policy.")
    raise Conflict(f"{name} has no active version: activate one first.")


def _active(session: Session, account_id: int | None, name: str) -> PolicyVersion | None:
    if not policy_document.is_name(name):
        return None
    return session.scalar(
        select(PolicyVersion).where(
            PolicyVersion.name == name,
            PolicyVersion.state == "active",
            or_(_whose(account_id), PolicyVersion.account_id.is_(None)),
        )
    )


def _whose(account_id: int | None) -> Any:
    return PolicyVersion.account_id.is_not_distinct_from(account_id)


def _concerns(account_id: int | None) -> Any:
    return or_(PolicyAssignment.account_id == account_id, PolicyAssignment.account_id.is_(None))


_DECIDING = text(
    """
    SELECT p.id FROM (
      SELECT DISTINCT ON (account_id, context) account_id, context, policy FROM policy_assignments
      WHERE (account_id = :account_id OR account_id IS NULL) AND (context = :context OR context IS NULL)
      ORDER BY account_id, context, id DESC) a
    JOIN policies p ON p.name = a.policy AND p.state = 'active'
      AND (p.account_id = :account_id OR p.account_id IS NULL)
    ORDER BY a.account_id IS NULL, a.context IS NULL LIMIT 1
    """
)
_EVERYWHERE = text(
    """
    SELECT s.name AS account, a.context, a.policy FROM (
      SELECT DISTINCT ON (account_id, context) account_id, context, policy FROM policy_assignments
      ORDER BY account_id, context, id DESC) a
    LEFT JOIN accounts s ON s.id = a.account_id
    WHERE a.policy IS NOT NULL ORDER BY s.name NULLS LAST, a.context NULLS LAST
    """
)
# What an account assigned is its own affair; the installation's policy may be assigned by any account, and the API's
# role cannot retire it.
_PLACES = text(
    """
    SELECT s.name AS account, a.context FROM (
      SELECT DISTINCT ON (account_id, context) account_id, context, policy FROM policy_assignments
      WHERE CAST(:owner AS bigint) IS NULL OR account_id = :owner
      ORDER BY account_id, context, id DESC) a
    LEFT JOIN accounts s ON s.id = a.account_id
    WHERE a.policy = :name ORDER BY s.name NULLS FIRST, a.context LIMIT 20
    """
)
