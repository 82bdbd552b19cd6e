"""Accounts and their API keys. Keys are shown once and stored as SHA-256: 256 random bits need no slow hash."""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from db.errors import BadKey, Conflict, NotFound
from db.session import enter_account
from db.tables import Account, ApiKey

SCOPES: Final = (
    *("jobs:write", "jobs:read", "labels:write", "catalog:read", "system:read", "models:read", "models:write"),
    *("webhooks:read", "webhooks:write", "policies:read", "policies:write"),
    *("moderation:read", "moderation:write"),
    *("audit:read", "reviews:read", "reviews:write"),
    *("banks:read", "banks:write"),
    *("erasures:read", "erasures:write"),
)
# What a key has unless more is asked for: system:read opens numbers of all accounts, and models are the installation's.
CLIENT_SCOPES: Final = (
    *("jobs:write", "jobs:read", "labels:write", "catalog:read"),
    *("moderation:write", "moderation:read"),
)
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY: Final = re.compile(r"tgm_live_([0-9A-Za-z]{8})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")


@dataclass(frozen=True)
class Principal:
    """Who asks: an account, through one of its keys. `requests_per_minute`: the account's own limit, if it has one."""

    account_id: int
    account_name: str
    key_id: str
    scopes: frozenset[str]
    requests_per_minute: int | None = None


def create(session: Session, name: str, weight: int = 1) -> Account:
    """A new account; Conflict when the name is taken."""
    added = session.execute(
        text("INSERT INTO accounts (name, weight) VALUES (:name, :weight) ON CONFLICT (name) DO NOTHING RETURNING id"),
        {"name": name, "weight": weight},
    ).scalar()
    if added is None:
        raise Conflict(f"An account named {name!r} exists already.")
    return session.get_one(Account, added)


def by_name(session: Session, name: str) -> Account:
    """The account of that name; NotFound."""
    account = session.scalar(select(Account).where(Account.name == name))
    if account is None:
        raise NotFound(f"There is no account named {name!r}.")
    return account


def create_key(
    session: Session,
    account_id: int,
    name: str,
    scopes: tuple[str, ...] = CLIENT_SCOPES,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key of the account: its row, and the key text, which is not stored and cannot be shown again."""
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise ValueError(f"scopes must be some of {', '.join(SCOPES)}")
    key_id = _random(8)
    secret = _random(43)
    presented = f"tgm_live_{key_id}_{secret}{_checksum(key_id, secret)}"
    row_id = session.execute(
        text(
            "INSERT INTO api_keys (account_id, key_id, secret_hash, name, scopes, expires_at)"
            " VALUES (:account_id, :key_id, :secret_hash, :name, :scopes, :expires_at) RETURNING id"
        ),
        {
            "account_id": account_id,
            "key_id": key_id,
            "secret_hash": hashlib.sha256(presented.encode()).digest(),
            "name": name,
            "scopes": list(scopes),
            "expires_at": expires_at,
        },
    ).scalar_one()
    return session.get_one(ApiKey, row_id), presented


def list_keys(session: Session, account_id: int) -> list[ApiKey]:
    """The account's keys, oldest first, revoked ones too."""
    return list(session.scalars(select(ApiKey).where(ApiKey.account_id == account_id).order_by(ApiKey.id)))


def revoke_key(session: Session, account_id: int, key_id: str) -> None:
    """From now on the key opens nothing; NotFound when the account has no such key."""
    revoked = session.execute(
        update(ApiKey)
        .where(ApiKey.account_id == account_id, ApiKey.key_id == key_id)
        .values(revoked_at=text("coalesce(api_keys.revoked_at, now())"))
        .returning(ApiKey.id)
    ).first()
    if revoked is None:
        raise NotFound(f"There is no key {key_id!r}.")


def authenticate(session: Session, presented: str) -> Principal:
    """The principal of a presented key; BadKey when it opens nothing. Sets the transaction's account.

    The checksum refuses typing errors and random guesses without a query.
    """
    match = _KEY.fullmatch(presented)
    if match is None or not hmac.compare_digest(match[3], _checksum(match[1], match[2])):
        raise BadKey("malformed")
    session.execute(text("SELECT set_config('tagmill.key_id', :key_id, true)"), {"key_id": match[1]})
    row = session.execute(_KEY_ROW, {"key_id": match[1]}).first()
    digest = hashlib.sha256(presented.encode()).digest()
    if row is None or not hmac.compare_digest(bytes(row.secret_hash), digest):
        raise BadKey("unknown")
    if row.revoked:
        raise BadKey("revoked")
    if row.expired:
        raise BadKey("expired")
    enter_account(session, row.account_id)
    if row.stale:
        session.execute(
            text("UPDATE api_keys SET last_used_at = now() WHERE id = :id"),
            {"id": row.id},
        )
    account = session.execute(_ACCOUNT, {"id": row.account_id}).one()
    return Principal(row.account_id, account.name, match[1], frozenset(row.scopes), account.requests_per_minute)


_KEY_ROW: Final = text(
    "SELECT id, account_id, secret_hash, scopes, revoked_at IS NOT NULL AS revoked,"
    " coalesce(expires_at <= now(), false) AS expired,"
    " coalesce(last_used_at < now() - interval '1 minute', true) AS stale"
    " FROM api_keys WHERE key_id = :key_id"
)
_ACCOUNT: Final = text("SELECT name, requests_per_minute FROM accounts WHERE id = :id")


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(key_id: str, secret: str) -> str:
    value = zlib.crc32(f"{key_id}_{secret}".encode())
    digits = ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = _ALPHABET[digit] + digits
    return digits
