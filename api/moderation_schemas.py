"""The shapes of uploads for moderation on the wire. No behaviour."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas import MAX_ID, PLAIN, ModerationOut, Sent, TagOut, Verdict
from db.urls import MAX_URL_LENGTH

CONTEXT = r"^[a-z0-9_.-]{0,64}$"
MAX_NAME = 200
ModerationState = Literal["pending", "in_review", "decided", "failed"]


class SubjectIn(Sent):
    """Whose picture it is: your names for a person and for a product, either or both."""

    user: str | None = Field(default=None, min_length=1, max_length=MAX_ID, pattern=PLAIN)
    product: str | None = Field(default=None, min_length=1, max_length=MAX_ID, pattern=PLAIN)


class UploadOptions(Sent):
    """What is said of an upload beside its picture."""

    id: str | None = Field(
        default=None, min_length=1, max_length=MAX_ID, pattern=PLAIN, description="Your name for the upload."
    )
    subject: SubjectIn | None = None
    context: str = Field(default="", pattern=CONTEXT, description="Where it is to be shown: avatar, listing, …")
    policy: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_NAME,
        pattern=PLAIN,
        description="The name of the policy that decides; without it, the one assigned to you and the context.",
    )
    category: str | None = Field(
        default=None, min_length=1, max_length=MAX_ID, pattern=PLAIN, description="What its owner declares it to show."
    )


class ModerationIn(UploadOptions):
    """An upload by URL."""

    url: str = Field(max_length=MAX_URL_LENGTH, description="http or https, no user name or password.")


class SubjectOut(BaseModel):
    """Whose picture it is."""

    user: str | None
    product: str | None


class ModerationRowOut(BaseModel):
    """An upload as lists show it.

    `pending`: nothing is said of it yet; `in_review`: the machine is in doubt and a person looks at it; `decided`:
    approved or rejected; `failed`: there is no picture to decide on, see `code`."""

    id: UUID
    url: str
    client_id: str | None
    subject: SubjectOut
    context: str
    state: ModerationState
    verdict: Verdict | None = Field(description="What counts now: a person's, else the machine's.")
    automatic: Verdict | None
    code: str | None
    created_at: datetime
    changed_at: datetime | None = Field(description="When state or verdict last changed.")


class UploadOut(ModerationRowOut):
    """An upload in full."""

    moderation: ModerationOut | None = Field(description="Scores, reasons, policy and rule, and a person's decision.")
    detail: str | None
    category: str | None
    tags: list[TagOut]
    facts: dict[str, Any] | None
    item_id: str
    links: dict[str, str]


class ModerationsPage(BaseModel):
    """Uploads, newest first. `next` is the cursor of the following page, null at the end."""

    moderations: list[ModerationRowOut]
    next: str | None
