"""The shapes of webhooks on the wire, as pydantic models. The literals repeat `db.states`. No behaviour but checks."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, field_validator

from api.schemas import PLAIN, Sent
from db.outbox import EVENTS
from db.urls import MAX_URL_LENGTH

WebhookState = Literal["enabled", "disabled"]
WebhookReason = Literal["owner", "gone", "failing"]
DeliveryState = Literal["pending", "delivered", "failed"]
ASKED_FOR = sorted(EVENTS.keys() - {"webhook.ping"})
Url = Annotated[str, Field(min_length=1, max_length=MAX_URL_LENGTH, description="https, a public name or address.")]
Types = Annotated[
    list[Annotated[str, Field(json_schema_extra={"enum": ASKED_FOR})]] | None,
    Field(min_length=1, max_length=len(EVENTS), description="Which events; null: all."),
]
Description = Annotated[str | None, Field(min_length=1, max_length=200, pattern=PLAIN)]


def _known(value: list[str] | None) -> list[str] | None:
    if value is None:
        return None
    if unknown := sorted(set(value) - set(ASKED_FOR)):
        raise ValueError(f"no such events: {', '.join(each[:50] for each in unknown)}")
    return sorted(set(value))


class WebhookIn(Sent):
    """An endpoint to be made."""

    url: Url
    types: Types = None
    description: Description = None

    _types = field_validator("types")(_known)


class WebhookChangeIn(Sent):
    """What shall be otherwise; absent members stay."""

    url: Annotated[str, Field(max_length=MAX_URL_LENGTH, description="https, a public name or address.")] = ""
    types: Types = None
    description: Description = None
    enabled: bool | None = Field(default=None, description="Enabling gives it a clean record; null: as it is.")

    _types = field_validator("types")(_known)


class RedeliverIn(Sent):
    """From when on."""

    since: Annotated[datetime, Field(strict=False)] = Field(description="RFC 3339, with a time zone.")

    @field_validator("since", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        """A number would be read as Unix time, of seconds or milliseconds by its size: nobody should have to guess."""
        if not isinstance(value, str):
            raise ValueError("a text is needed: 2026-11-22T18:00:00Z")
        return value

    @field_validator("since")
    @classmethod
    def _zoned(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("the time zone is missing: write Z for UTC")
        return value


class WebhookOut(BaseModel):
    """An endpoint. `reason`: disabled by its `owner`, or by us, because it is `gone` (410) or was only `failing`."""

    id: UUID
    url: str
    types: list[str] | None
    description: str | None
    state: WebhookState
    reason: WebhookReason | None
    failures: int = Field(description="In a row, up to now.")
    failing_since: datetime | None
    paused_until: datetime | None
    delivered_at: datetime | None = Field(description="About when it last took an event.")
    disabled_at: datetime | None
    rotating_until: datetime | None = Field(description="Until then the secret before the last rotation signs too.")
    created_at: datetime


class WebhookSecretOut(WebhookOut):
    """An endpoint with its secret: keep it now, it is not shown again."""

    secret: str = Field(description="`whsec_` and base64, for any library of Standard Webhooks.")


class WebhooksPage(BaseModel):
    """Endpoints, newest first. `next` is the cursor of the following page, null at the end."""

    webhooks: list[WebhookOut]
    next: str | None


class DeliveryOut(BaseModel):
    """An event at an endpoint. `id` is the event's: the `webhook-id` of every try. `code` is of the last try."""

    id: UUID
    type: str
    state: DeliveryState
    attempts: int
    code: str | None
    status: int | None
    next_at: datetime | None = Field(description="When it is tried next; null: not any more.")
    created_at: datetime
    ended_at: datetime | None


class AttemptOut(BaseModel):
    """One try; `code` null: it was taken. What the receiver said besides its status is not kept."""

    n: int
    at: datetime
    code: str | None
    status: int | None
    seconds: float


class DeliveryWholeOut(DeliveryOut):
    """A delivery with its log, and what the event says."""

    data: dict[str, Any]
    log: list[AttemptOut]


class DeliveriesPage(BaseModel):
    """Deliveries, newest event first. `next` is the cursor of the following page, null at the end."""

    deliveries: list[DeliveryOut]
    next: str | None


class RedeliveredOut(BaseModel):
    """How many deliveries wait to be sent again."""

    queued: int
