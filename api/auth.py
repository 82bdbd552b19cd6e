"""Bearer keys: from the Authorization header to a principal with scopes. Knows nothing of routes."""

import math

from flask import Request

from api.errors import Problem, seconds
from db import accounts, limits
from db.accounts import Principal
from db.errors import BadKey
from db.limits import Rate, RateLimited
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


def authenticate(database: Database, request: Request, per_minute: int) -> tuple[Principal, Rate | None]:
    """Who asks, and what is left of the account's requests (`per_minute`, where it has no limit of its own).

    Problems: `missing_key`; `invalid_key` (malformed, unknown, expired and revoked are not told apart); `rate_limited`.
    """
    key = presented_key(request)
    try:
        with database.transaction() as session:
            principal = accounts.authenticate(session, key)
        own = principal.requests_per_minute
        return principal, limits.take(database, principal.account_id, per_minute if own is None else own)
    except BadKey as refused:
        raise Problem("invalid_key", "The API key is not valid.", headers=CHALLENGE) from refused
    except RateLimited as refused:
        headers = {"Retry-After": seconds(refused.wait_s), **rate_headers(refused.rate)}
        raise Problem("rate_limited", refused.detail, headers=headers) from refused


def rate_headers(rate: Rate) -> dict[str, str]:
    """What is left, as draft-ietf-httpapi-ratelimit-headers-10 says it."""
    left = f'"requests";r={rate.left};t={math.ceil(rate.full_in_s)}'
    return {"RateLimit-Policy": f'"requests";q={rate.per_minute};w={limits.MINUTE_S:.0f}', "RateLimit": left}


def require(principal: Principal, scope: str) -> None:
    """Problem `missing_scope` unless the key has it."""
    if scope not in principal.scopes:
        raise Problem(
            "missing_scope",
            f"This needs the scope {scope}.",
            headers={"WWW-Authenticate": f'Bearer realm="tagmill", error="insufficient_scope", scope="{scope}"'},
        )
