"""What an erasure is asked for, and its receipt."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas import MAX_ID, PLAIN, Sent

ErasureKind = Literal["item", "product", "subject", "job", "picture", "account"]
ErasureState = Literal["asked", "running", "finished"]


class ErasureIn(Sent):
    """What is to be forgotten."""

    kind: ErasureKind = Field(description="What `target` names.")
    target: str = Field(
        min_length=1,
        max_length=MAX_ID,
        pattern=PLAIN,
        description="The id of an item or a job; a product; the `user` of uploads for moderation (subject); the SHA-256"
        " of a picture's bytes; for all that the account has, its name (account).",
    )
    reference: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=PLAIN,
        description="Your reference of the request, kept in the receipt: a number of yours, no names.",
    )


class ErasureOut(BaseModel):
    """An erasure, and once it is finished the receipt of it."""

    id: UUID
    url: str
    kind: ErasureKind
    target: str | None = Field(description="An id or a hash; null where it was a name that somebody chose.")
    target_sha256: str = Field(description="SHA-256 of `kind:target`, for who knows the target to recognise it.")
    reference: str | None
    actor: str = Field(description="Who asked: `key:…` or `cli`.")
    state: ErasureState
    counts: dict[str, int] = Field(description="What was removed so far, by kind.")
    journal_sha256: str | None = Field(description="SHA-256 of the list of ids and hashes that is kept of it.")
    created_at: datetime
    started_at: datetime | None
    rows_at: datetime | None = Field(description="When no row was left.")
    finished_at: datetime | None = Field(description="When no blob was left either.")
    settled_at: datetime | None = Field(description="When it had been looked for once more, half an hour later.")


class ErasuresPage(BaseModel):
    """A page of erasures."""

    erasures: list[ErasureOut]
    next: str | None
