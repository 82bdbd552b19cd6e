"""Sessions of the console: begun, resolved by their token, revoked. Signing in is in `db.sign_in`.

Tokens are 256 random bits, kept as SHA-256.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit, people
from db.errors import NotFound
from db.ids import uuid7
from db.people import Person
from db.session import enter_account

MAX_NOTICES: Final = 5


@dataclass(frozen=True)
class Visit:
    """A signed-in person, in the session they are in."""

    session_id: UUID
    person: Person
    notices: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class SessionView:
    """A session as its owner sees it."""

    id: UUID
    means: str
    address: str
    agent: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime


def token_hash(token: str) -> bytes:
    """How a token is kept."""
    return hashlib.sha256(token.encode()).digest()


def begin(session: Session, person: Person, *, means: str, address: str, agent: str, hours: float) -> str:
    """Sign somebody in: the token for their cookie, which is not stored. The transaction enters their account."""
    token = secrets.token_urlsafe(32)
    enter_account(session, person.account_id)
    session.execute(
        text(
            "INSERT INTO console_sessions (id, token_hash, account_id, person_id, means, address, agent, expires_at)"
            " VALUES (:id, :hash, :account, :person, :means, :address, :agent, now() + make_interval(secs => :secs))"
        ),
        {
            "id": uuid7(),
            "hash": token_hash(token),
            "account": person.account_id,
            "person": person.id,
            "means": means,
            "address": address[:64],
            "agent": agent[:200],
            "secs": hours * 3600,
        },
    )
    session.execute(text("UPDATE people SET last_sign_in_at = now() WHERE id = :id"), {"id": person.id})
    audit.record(session, person.account_id, person.actor, "person.sign_in", str(person.id), means=means)
    return token


def resolve(session: Session, token: str, *, idle_hours: float) -> Visit | None:
    """Who has this token, or None: unknown, revoked, too old, unused for too long, or the person is disabled.

    The transaction enters the account. Notices are handed out once.
    """
    show_token(session, token)
    row = session.execute(_LIVE, {"hash": token_hash(token), "idle": idle_hours * 3600}).mappings().first()
    if row is None:
        return None
    enter_account(session, row["account_id"])
    person = people.get(session, row["account_id"], row["person_id"])
    if person.disabled_at is not None:
        return None
    if row["stale"]:
        session.execute(text("UPDATE console_sessions SET last_seen_at = now() WHERE id = :id"), {"id": row["id"]})
    return Visit(row["id"], person, tuple(row["notices"]))


_LIVE: Final = text(
    "SELECT id, account_id, person_id, notices, last_seen_at < now() - interval '1 minute' AS stale"
    " FROM console_sessions WHERE token_hash = :hash AND revoked_at IS NULL AND expires_at > now()"
    " AND last_seen_at > now() - make_interval(secs => :idle)"
)


def show_token(session: Session, token: str) -> None:
    """Row-level security opens the row of this token to the transaction."""
    session.execute(text("SELECT set_config('tagmill.console_token', :hash, true)"), {"hash": token_hash(token).hex()})


def notify(session: Session, visit: Visit, message: str, kind: str) -> None:
    """Keep a message for the next page of this session."""
    session.execute(
        text(
            "UPDATE console_sessions SET notices = CASE WHEN jsonb_array_length(notices) < :most"
            " THEN notices || CAST(:notice AS jsonb) ELSE notices END WHERE id = :id"
        ),
        {"id": visit.session_id, "notice": json.dumps([{"text": message, "kind": kind}]), "most": MAX_NOTICES},
    )


def clear_notices(session: Session, visit: Visit) -> None:
    """They were shown."""
    session.execute(text("UPDATE console_sessions SET notices = '[]' WHERE id = :id"), {"id": visit.session_id})


def of_person(session: Session, person: Person, *, idle_hours: float) -> list[SessionView]:
    """Their sessions that are still good, the newest first."""
    rows = session.execute(
        text(
            "SELECT id, means, address, agent, created_at, last_seen_at, expires_at FROM console_sessions"
            " WHERE person_id = :person AND account_id = :account AND revoked_at IS NULL AND expires_at > now()"
            " AND last_seen_at > now() - make_interval(secs => :idle) ORDER BY created_at DESC"
        ),
        {"person": person.id, "account": person.account_id, "idle": idle_hours * 3600},
    )
    return [SessionView(**row) for row in rows.mappings()]


def revoke(session: Session, person: Person, session_id: UUID, *, actor: str) -> None:
    """End one session of this person; NotFound."""
    ended = session.execute(
        text(
            "UPDATE console_sessions SET revoked_at = coalesce(revoked_at, now())"
            " WHERE id = :id AND person_id = :person AND account_id = :account RETURNING id"
        ),
        {"id": session_id, "person": person.id, "account": person.account_id},
    ).first()
    if ended is None:
        raise NotFound("There is no such session.")
    audit.record(session, person.account_id, actor, "session.revoke", str(session_id))


def revoke_all(session: Session, person: Person, *, actor: str, keep: UUID | None = None) -> int:
    """End all their sessions, but `keep`, and their unused links: how many sessions it were."""
    ended = session.execute(
        text(
            "UPDATE console_sessions SET revoked_at = now() WHERE person_id = :person AND account_id = :account"
            " AND revoked_at IS NULL AND id IS DISTINCT FROM CAST(:keep AS uuid) RETURNING id"
        ),
        {"person": person.id, "account": person.account_id, "keep": keep},
    ).all()
    session.execute(
        text("UPDATE sign_in_links SET used_at = now() WHERE person_id = :person AND used_at IS NULL"),
        {"person": person.id},
    )
    audit.record(session, person.account_id, actor, "session.revoke_all", str(person.id), sessions=len(ended))
    return len(ended)


def forget(session: Session) -> None:
    """Drop what is of no use any more: old attempts, links and sessions."""
    session.execute(text("DELETE FROM sign_in_attempts WHERE created_at < now() - interval '1 day'"))
    session.execute(text("DELETE FROM sign_in_links WHERE expires_at < now() - interval '1 day'"))
    session.execute(
        text(
            "DELETE FROM console_sessions WHERE expires_at < now() - interval '7 days'"
            " OR revoked_at < now() - interval '7 days'"
        )
    )
