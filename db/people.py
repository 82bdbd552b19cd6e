"""People of the console: who they are and what they may. Their sessions are in `db.sessions`."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit
from db.errors import Conflict, DbError, NotFound
from db.ids import uuid7
from db.session import changed

Role = Literal["viewer", "reviewer", "curator", "admin"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "reviewer", "curator", "admin")
"""From the least to the most; each may what those before it may."""
OPERATOR: Final = "operator"
"""No role in an account, but the right to see and run what is the installation's: models, queues, workers."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}")


class BadPerson(DbError):
    """The name, e-mail address or role cannot be one; `field` says which."""

    code = "bad_person"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field


@dataclass(frozen=True)
class Person:
    """Somebody of an account."""

    id: UUID
    account_id: int
    account_name: str
    name: str
    email: str | None
    role: Role
    operator: bool
    has_password: bool
    created_at: datetime
    last_sign_in_at: datetime | None
    disabled_at: datetime | None

    @property
    def actor(self) -> str:
        """How logs and decisions name them."""
        return f"user:{self.id}"

    def may(self, role: str) -> bool:
        """Whether their role is at least this one; `operator` is a right of its own."""
        if role == OPERATOR:
            return self.operator
        return role in ROLES and ROLES.index(self.role) >= ROLES.index(role)


_SELECT: Final = (
    "SELECT p.id, p.account_id, a.name AS account_name, p.name, p.email, p.role, p.operator,"
    " p.password_hash IS NOT NULL AS has_password, p.created_at, p.last_sign_in_at, p.disabled_at"
    " FROM people p JOIN accounts a ON a.id = p.account_id"
)


def create(
    session: Session,
    account_id: int,
    name: str,
    *,
    role: str = "viewer",
    email: str | None = None,
    password_hash: str | None = None,
    actor: str,
) -> Person:
    """Somebody new; BadPerson, Conflict when the name or the address is taken."""
    name, email = name.strip().lower(), email.strip().lower() if email and email.strip() else None
    if not _NAME.fullmatch(name):
        raise BadPerson("name", "A name has up to 63 of a–z, 0–9, dot, dash and underscore, a letter or digit first.")
    if email is not None and not _EMAIL.fullmatch(email):
        raise BadPerson("email", "That is no e-mail address.")
    _known(role)
    added = session.execute(
        text(
            "INSERT INTO people (id, account_id, name, email, role, password_hash)"
            " VALUES (:id, :account_id, :name, :email, :role, :password_hash) ON CONFLICT DO NOTHING"
        ),
        {
            "id": (person_id := uuid7()),
            "account_id": account_id,
            "name": name,
            "email": email,
            "role": role,
            "password_hash": password_hash,
        },
    )
    if changed(added) != 1:
        raise Conflict("The name or the e-mail address is taken.")
    audit.record(session, account_id, actor, "person.create", str(person_id), role=role)
    return get(session, account_id, person_id)


def _known(role: str) -> None:
    if role not in ROLES:
        raise BadPerson("role", f"There are the roles {', '.join(ROLES)}.")


def get(session: Session, account_id: int, person_id: UUID) -> Person:
    """Somebody of this account; NotFound."""
    return _one(session, "p.account_id = :account_id AND p.id = :id", account_id=account_id, id=person_id)


def by_name(session: Session, name: str) -> Person:
    """Somebody by name or e-mail address, of any account that this transaction sees; NotFound."""
    return _one(session, "p.name = :name OR p.email = :name", name=name.strip().lower())


def _one(session: Session, condition: str, **values: object) -> Person:
    row = session.execute(text(f"{_SELECT} WHERE {condition}"), values).mappings().first()
    if row is None:
        raise NotFound("There is nobody of that name.")
    return Person(**row)


def password_hash(session: Session, person: Person) -> str | None:
    """What `db.passwords.verify` compares with."""
    found: str | None = session.scalar(text("SELECT password_hash FROM people WHERE id = :id"), {"id": person.id})
    return found


def everybody(session: Session, account_id: int | None = None) -> list[Person]:
    """The people of an account, or (for the owner) of all, by name; disabled ones too."""
    query = f"{_SELECT} WHERE :account_id::bigint IS NULL OR p.account_id = :account_id ORDER BY a.name, p.name"
    query = query.replace(":account_id::bigint", "CAST(:account_id AS bigint)")
    return [Person(**row) for row in session.execute(text(query), {"account_id": account_id}).mappings()]


def names(session: Session, account_id: int) -> dict[str, str]:
    """Actor (`user:<id>`) → name, to show who did something."""
    rows = session.execute(text("SELECT id, name FROM people WHERE account_id = :id"), {"id": account_id})
    return {f"user:{row.id}": row.name for row in rows}


def set_role(session: Session, person: Person, role: str, *, actor: str) -> None:
    """Give another role in the account; BadPerson."""
    _known(role)
    session.execute(text("UPDATE people SET role = :role WHERE id = :id"), {"role": role, "id": person.id})
    audit.record(session, person.account_id, actor, "person.role", str(person.id), role=role)


def set_operator(session: Session, person: Person, operator: bool, *, actor: str) -> None:
    """Open or close the pages of the installation. Only the owner of the tables may; the API's role may not."""
    session.execute(text("UPDATE people SET operator = :yes WHERE id = :id"), {"yes": operator, "id": person.id})
    audit.record(session, person.account_id, actor, "person.operator", str(person.id), operator=operator)


def set_password(session: Session, person: Person, password_hash: str, *, actor: str) -> None:
    """Another password; end their sessions with `db.sessions.revoke_all`."""
    session.execute(
        text("UPDATE people SET password_hash = :hash WHERE id = :id"), {"hash": password_hash, "id": person.id}
    )
    audit.record(session, person.account_id, actor, "person.password", str(person.id))


def set_disabled(session: Session, person: Person, disabled: bool, *, actor: str) -> None:
    """Nobody signs in as them any more, or again; what they did keeps their name."""
    session.execute(
        text("UPDATE people SET disabled_at = CASE WHEN :yes THEN coalesce(disabled_at, now()) END WHERE id = :id"),
        {"yes": disabled, "id": person.id},
    )
    audit.record(session, person.account_id, actor, "person.disable" if disabled else "person.enable", str(person.id))
