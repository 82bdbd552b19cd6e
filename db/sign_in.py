"""Signing in to the console: attempts by password, counted for a name and an address, and one-time links.

Passwords are checked by the caller, outside of a transaction.
"""

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit, people
from db.errors import DbError
from db.ids import uuid7
from db.locks import lock
from db.people import Person
from db.session import enter_account
from db.sessions import show_token, token_hash

LINK_MINUTES: Final = 10
WINDOW_MINUTES: Final = 15


class TooManyAttempts(DbError):
    """Too many refused sign-ins of this name or address lately."""

    code = "too_many_attempts"


class BadLink(DbError):
    """The sign-in link is unknown, used or too old (not told apart)."""

    code = "bad_link"


@dataclass(frozen=True)
class Claimed:
    """Who somebody says to be: the person, if there is one, and the hash to check their password with."""

    person: Person | None
    password_hash: str | None


def claim(session: Session, login: str, address: str, *, most_of_name: int, most_of_address: int) -> Claimed:
    """Count an attempt and look its person up; TooManyAttempts. It counts as refused until `forgive`."""
    login = login.strip().lower()[:254]
    count(session, f"address:{address}", most_of_address)
    count(session, f"name:{login}", most_of_name)
    session.execute(text("SELECT set_config('tagmill.sign_in', :login, true)"), {"login": login})
    row = session.execute(
        text("SELECT id, account_id, password_hash FROM people WHERE name = :login OR email = :login"),
        {"login": login},
    ).first()
    if row is None:
        return Claimed(None, None)
    enter_account(session, row.account_id)
    person = people.get(session, row.account_id, row.id)
    return Claimed(person, row.password_hash if person.disabled_at is None else None)


def count(session: Session, subject: str, most: int) -> None:
    """One more attempt of this subject; TooManyAttempts beyond `most` in the window.

    The lock makes attempts that come at once wait for each other, so that they cannot all be the first.
    """
    lock(session, "sign_in", subject)
    lately = session.execute(_LATELY, {"subject": subject, "minutes": WINDOW_MINUTES}).scalar_one()
    if lately >= most:
        raise TooManyAttempts(f"Too many attempts; wait up to {WINDOW_MINUTES} minutes.")
    session.execute(text("INSERT INTO sign_in_attempts (subject) VALUES (:subject)"), {"subject": subject})


_LATELY: Final = text(
    "SELECT count(*) FROM sign_in_attempts WHERE subject = :subject"
    " AND created_at > now() - make_interval(mins => :minutes)"
)


def forgive(session: Session, login: str, address: str) -> None:
    """The attempt was good: the name starts from zero, and the address is given this attempt back."""
    login = login.strip().lower()[:254]
    session.execute(text("DELETE FROM sign_in_attempts WHERE subject = :name"), {"name": f"name:{login}"})
    session.execute(
        text("DELETE FROM sign_in_attempts WHERE id = (SELECT max(id) FROM sign_in_attempts WHERE subject = :address)"),
        {"address": f"address:{address}"},
    )


def issue_link(session: Session, person: Person, *, actor: str) -> str:
    """The token of a link that signs this person in once, within ten minutes."""
    token = secrets.token_urlsafe(32)
    session.execute(
        text(
            "INSERT INTO sign_in_links (id, token_hash, account_id, person_id, actor, expires_at)"
            " VALUES (:id, :hash, :account, :person, :actor, now() + make_interval(mins => :minutes))"
        ),
        {
            "id": uuid7(),
            "hash": token_hash(token),
            "account": person.account_id,
            "person": person.id,
            "actor": actor,
            "minutes": LINK_MINUTES,
        },
    )
    audit.record(session, person.account_id, actor, "person.link", str(person.id))
    return token


def use_link(session: Session, token: str) -> Person:
    """Whose link it is; from now on it is used. BadLink. The transaction enters the account."""
    show_token(session, token)
    hashed = token_hash(token)
    row = session.execute(
        text("SELECT account_id FROM sign_in_links WHERE token_hash = :hash"), {"hash": hashed}
    ).first()
    if row is None:
        raise BadLink("The link is used or too old.")
    enter_account(session, row.account_id)
    used = session.execute(
        text(
            "UPDATE sign_in_links SET used_at = now() WHERE token_hash = :hash AND used_at IS NULL"
            " AND expires_at > now() RETURNING account_id, person_id"
        ),
        {"hash": hashed},
    ).first()
    if used is None:
        raise BadLink("The link is used or too old.")
    person = people.get(session, used.account_id, used.person_id)
    if person.disabled_at is not None:
        raise BadLink("The link is used or too old.")
    return person
