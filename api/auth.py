"""Bearer keys: from the Authorization header to a principal with scopes. Knows nothing of routes."""

from flask import Request

from api.errors import Problem
from db import accounts
from db.accounts import Principal
from db.errors import BadKey
from db.session import Database

MAX_KEY_LENGTH = 200
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="tagmill"'}


def presented_key(request: Request) -> str:
    """The key of the Authorization header. A key in the URL is ignored: URLs end up in logs."""
    header = request.headers.get("Authorization", "")
    scheme, _, key = header.partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Problem("missing_key", "Send the header `Authorization: Bearer <key>`.", headers=CHALLENGE)
    if len(key) > MAX_KEY_LENGTH or not key.isascii():
        raise Problem("invalid_key", "The API key is not valid.", headers=CHALLENGE)
    return key


def authenticate(database: Database, request: Request) -> Principal:
    """Who asks; Problem `missing_key` or `invalid_key` (malformed, unknown, expired and revoked are not told apart)."""
    key = presented_key(request)
    try:
        with database.transaction() as session:
            return accounts.authenticate(session, key)
    except BadKey as refused:
        raise Problem("invalid_key", "The API key is not valid.", headers=CHALLENGE) from refused


def require(principal: Principal, scope: str) -> None:
    """Problem `missing_scope` unless the key has it."""
    if scope not in principal.scopes:
        raise Problem(
            "missing_scope",
            f"This needs the scope {scope}.",
            headers={"WWW-Authenticate": f'Bearer realm="tagmill", error="insufficient_scope", scope="{scope}"'},
        )
