"""The account behind the key: its limits, and what is left of them."""

from datetime import UTC, datetime, timedelta

from flask import Response, g
from pydantic import BaseModel, Field

from api.answers import json_answer
from api.routing import Answer, Call, Routes
from db import limits

routes = Routes("account", "Your limits, and what is left of them.")


class RequestsOut(BaseModel):
    """Requests of all keys of the account."""

    per_minute: int | None = Field(description="How many may be sent in a minute; null: any.")
    left: int | None = Field(description="How many may be sent at once now; null: any.")


class ItemsOut(BaseModel):
    """Items submitted since midnight (UTC)."""

    per_day: int | None = Field(description="How many may be submitted in a day; null: any.")
    today: int = Field(description="How many were.")
    left: int | None = Field(description="How many may still be; null: any.")
    resets_at: datetime = Field(description="When the next day begins.")


class AccountOut(BaseModel):
    """An account's limits."""

    name: str
    requests: RequestsOut
    items: ItemsOut


@routes.route(
    "GET",
    "/v1/account",
    scope="jobs:read",
    summary="Read your limits",
    answers={200: Answer("The account that the key opens.", AccountOut)},
)
def read(call: Call) -> Response:
    """What the account may send, and what it has sent. Every answer to a key says the first part in the headers
    `RateLimit-Policy` and `RateLimit` too."""
    assert call.principal is not None
    with call.transaction() as session:
        day = limits.today(session, call.account_id, call.settings.items_per_day)
    rate: limits.Rate | None = g.rate
    return json_answer(
        AccountOut(
            name=call.principal.account_name,
            requests=RequestsOut(
                per_minute=None if rate is None else rate.per_minute, left=None if rate is None else rate.left
            ),
            items=ItemsOut(
                per_day=day.per_day or None,
                today=day.items,
                left=day.left if day.per_day else None,
                resets_at=(datetime.now(UTC) + timedelta(seconds=day.ends_in_s)).replace(microsecond=0),
            ),
        )
    )
