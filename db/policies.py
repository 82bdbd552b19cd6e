"""Policies and their versions: written, activated, retired. Where they apply is in `db.policy_assignments`.

    → draft            `add`: every text that is saved is a version of its own, and never changes
    draft → active     `activate`; the version that was active before → retired
    retired → active   `activate` again: a step back is no other way
    draft, active → retired   `retire`; an active one only when it is assigned nowhere

`owner`: the account that a policy belongs to, None for the installation's, which every account reads and only the
operator changes. No account can take a name that the installation has, nor the other way round: name@version, as
results say it, is one policy to whoever reads it.
"""

from typing import Final

from sqlalchemy import ColumnElement, Select, func, or_, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from db import audit, locks, policy, policy_document
from db.errors import Conflict, NotFound
from db.policy_assignments import assigned_to
from db.policy_tables import PolicyActivation, PolicyVersion
from db.policy_text import Written, source_of

MAX_NAMES: Final = 200
MAX_VERSIONS: Final = 2000
"""Of an account; who saves more has a program that runs wild."""

Owner = int | None


class PolicyNameTaken(Conflict):
    """The installation has a policy of this name, or an account has one that the installation cannot take."""

    code = "policy_name_taken"


class PolicyReadOnly(Conflict):
    """The policy is the installation's, and an account wants to change it."""

    code = "policy_read_only"


class PolicyInUse(Conflict):
    """The policy is assigned; without an active version nothing would decide there."""

    code = "policy_in_use"


def add(session: Session, owner: Owner, new: Written, *, actor: str) -> PolicyVersion:
    """→ draft: the next version of the policy's name. The newest version, when it says the same and is not retired.
    Raises PolicyNameTaken, Conflict when there are too many."""
    name = new.policy.name
    locks.lock(session, "policy", name)
    _check_name(session, owner, name)
    newest = session.scalar(_of(owner, name).order_by(PolicyVersion.version.desc()).limit(1))
    version = newest.version + 1 if newest else 1
    document = {**new.document, "version": version}
    if newest and newest.state != "retired" and newest.document == {**new.document, "version": newest.version}:
        return newest
    if newest is None:
        names = session.scalar(select(func.count(PolicyVersion.name.distinct())).where(_owned(owner)))
        if (names or 0) >= MAX_NAMES:
            raise Conflict(f"There are {MAX_NAMES} policies; retired ones count too.")
    if version > MAX_VERSIONS:
        raise Conflict(f"{name} has {MAX_VERSIONS} versions: go on under another name.")
    row = PolicyVersion(
        account_id=owner, name=name, version=version, state="draft", document=document, source=new.text,
        created_by=actor, created_at=func.now(),
    )  # fmt: skip
    session.add(row)
    session.flush()
    audit.record(session, owner, actor, "policy.add", row.ref)
    session.refresh(row)
    return row


def activate(session: Session, owner: Owner, name: str, version: int, *, actor: str) -> PolicyVersion:
    """draft or retired → active, and the version active before it → retired. New jobs pin it from now on; running jobs
    keep what they pinned. Raises NotFound, PolicyReadOnly, PolicyError."""
    locks.lock(session, "policy", name)
    row = _own(session, owner, name, version)
    if row.state == "active":
        return row
    policy.validate(row.document)
    before = session.scalar(_of(owner, name).where(PolicyVersion.state == "active"))
    if before is not None:
        _move(session, before, "retired")
    _move(session, row, "active")
    _note(session, owner, name, row.version, before, actor)
    audit.record(session, owner, actor, "policy.activate", row.ref, replaced=before.ref if before else None)
    return row


def retire(session: Session, owner: Owner, name: str, version: int, *, actor: str) -> PolicyVersion:
    """draft or active → retired. Raises NotFound, PolicyReadOnly, and PolicyInUse where it is assigned."""
    locks.lock(session, "policy", name)
    row = _own(session, owner, name, version)
    if row.state == "retired":
        return row
    if row.state == "active":
        places = assigned_to(session, owner, name)
        if places:
            raise PolicyInUse(f"{row.ref} decides for {', '.join(places)}: assign another policy there first.")
        _note(session, owner, name, None, row, actor)
    _move(session, row, "retired")
    audit.record(session, owner, actor, "policy.retire", row.ref)
    return row


def get(session: Session, account_id: Owner, name: str, version: int | None = None) -> PolicyVersion:
    """A version that the account may read; without a number the active one, else the newest. Raises NotFound."""
    row = None
    if policy_document.is_name(name) and (version or 0) < 2**31:
        query = select(PolicyVersion).where(_readable(account_id), PolicyVersion.name == name)
        if version is not None:
            query = query.where(PolicyVersion.version == version)
        newest_first = query.order_by(PolicyVersion.state != "active", PolicyVersion.version.desc())
        row = session.scalar(newest_first.limit(1))
    if row is None:
        raise NotFound("There is no such policy." if version is None else "There is no such version of a policy.")
    return row


def versions(session: Session, account_id: Owner, name: str) -> list[PolicyVersion]:
    """All versions of a name that the account may read, newest first. Raises NotFound."""
    query = select(PolicyVersion).where(_readable(account_id), PolicyVersion.name == name)
    rows = list(session.scalars(query.order_by(PolicyVersion.version.desc()))) if policy_document.is_name(name) else []
    if not rows:
        raise NotFound("There is no such policy.")
    return rows


def page(session: Session, account_id: Owner, *, after: str | None = None, limit: int = 100) -> list[PolicyVersion]:
    """Of each policy that the account may read the active version, else the newest; by name, behind `after`."""
    query = (
        select(PolicyVersion)
        .where(_readable(account_id))
        .ext(distinct_on(PolicyVersion.name))
        .order_by(PolicyVersion.name, PolicyVersion.state != "active", PolicyVersion.version.desc())
        .limit(limit)
    )
    return list(session.scalars(query if after is None else query.where(PolicyVersion.name > after)))


def history(session: Session, account_id: Owner, name: str, limit: int = 100) -> list[PolicyActivation]:
    """Which version was active since when, and by whom; newest first."""
    mine = or_(PolicyActivation.account_id == account_id, PolicyActivation.account_id.is_(None))
    query = select(PolicyActivation).where(mine, PolicyActivation.name == name)
    return list(session.scalars(query.order_by(PolicyActivation.id.desc()).limit(limit)))


def source(row: PolicyVersion) -> str:
    """The text of a version, to read and to write the next one from."""
    return row.source if row.source is not None else source_of(row.document)


def _own(session: Session, owner: Owner, name: str, version: int) -> PolicyVersion:
    row = get(session, owner, name, version)
    if row.account_id != owner:
        raise PolicyReadOnly(f"{row.ref} is the installation's: copy it under a name of your own.")
    session.refresh(row, with_for_update=True)
    return row


def _check_name(session: Session, owner: Owner, name: str) -> None:
    """An account sees the installation's names besides its own, the operator everybody's: both see what they need."""
    others = PolicyVersion.account_id.is_not(None) if owner is None else PolicyVersion.account_id.is_(None)
    if session.scalar(select(PolicyVersion.id).where(PolicyVersion.name == name, others).limit(1)) is not None:
        whose = "An account" if owner is None else "The installation"
        raise PolicyNameTaken(f"{whose} has a policy of the name {name}: take another one.")


def _move(session: Session, row: PolicyVersion, state: str) -> None:
    stamp = "activated_at = now(), retired_at = NULL" if state == "active" else "retired_at = now()"
    session.execute(text(f"UPDATE policies SET state = :state, {stamp} WHERE id = :id"), {"state": state, "id": row.id})
    session.refresh(row)


def _note(
    session: Session, owner: Owner, name: str, version: int | None, before: PolicyVersion | None, actor: str
) -> None:
    replaced = before.version if before else None
    session.add(
        PolicyActivation(
            account_id=owner, name=name, version=version, replaced=replaced, actor=actor, created_at=func.now()
        )
    )
    session.flush()


def _owned(owner: Owner) -> ColumnElement[bool]:
    return PolicyVersion.account_id.is_(None) if owner is None else PolicyVersion.account_id == owner


def _of(owner: Owner, name: str) -> Select[PolicyVersion]:
    return select(PolicyVersion).where(_owned(owner), PolicyVersion.name == name)


def _readable(account_id: Owner) -> ColumnElement[bool]:
    return or_(PolicyVersion.account_id.is_(None), PolicyVersion.account_id == account_id)
