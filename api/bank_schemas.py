"""The shapes of hash banks on the wire, as pydantic models. No behaviour but checks."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, field_validator, model_validator

from api.schemas import PLAIN, FaultOut, Sent, Verdict
from db.bank_rows import LENGTHS
from db.banks import DISTANCE, MAX_DISTANCE, QUALITY

BankKind = Literal["block", "allow"]
EntryState = Literal["on", "wide", "off", "expired", "quarantined"]
ChangeState = Literal["waiting", "deciding", "done"]
TEXT = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", description="a-z, 0-9, _ . - (64 at most).")]
Distance = Annotated[
    int, Field(ge=0, le=MAX_DISTANCE, description="Most bits, of 256, in which a picture may differ from an entry.")
]
Quality = Annotated[
    int, Field(ge=0, le=100, description="Least PDQ quality: a picture with less detail is not matched at all.")
]
Hash = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$", description="A PDQ hash: 64 hexadecimal digits.")]
Share = Annotated[float, Field(ge=0, le=1, description="Share of pictures that it is rolled out to, always the same.")]
Reason = Annotated[
    str | None, Field(min_length=1, max_length=LENGTHS["reason"], pattern=PLAIN, description="Shown with each verdict.")
]
Source = Annotated[str | None, Field(min_length=1, max_length=LENGTHS["source"], pattern=PLAIN)]
Comment = Annotated[str | None, Field(min_length=1, max_length=LENGTHS["comment"], pattern=TEXT)]
Expiry = Annotated[
    Annotated[datetime, Field(strict=False)] | None, Field(description="When it ends, with a time zone; null: never.")
]


def _zoned(value: object) -> object:
    """A number would be read as Unix time, of seconds or milliseconds by its size: nobody should have to guess."""
    if value is not None and not isinstance(value, str):
        raise ValueError("a text is needed: 2027-01-31T12:00:00Z")
    return value


def _with_zone(value: datetime | None) -> datetime | None:
    if value is not None and value.tzinfo is None:
        raise ValueError("the time zone is missing: write Z for UTC")
    return value


class BankIn(Sent):
    """A bank to be made."""

    name: Name
    kind: BankKind
    description: Comment = None
    distance: Distance = DISTANCE
    quality: Quality = QUALITY


class BankChangeIn(Sent):
    """What shall be otherwise; absent members stay."""

    description: Comment = None
    distance: Distance = DISTANCE
    quality: Quality = QUALITY
    enabled: bool = True


class EntryIn(Sent):
    """A hash to be added, or the item whose picture it is of."""

    pdq: Hash | None = None
    item_id: str | None = Field(default=None, max_length=100, description="An item: ban (or allow) its picture.")
    reason: Reason = None
    source: Source = None
    comment: Comment = None
    share: Share = 1.0
    enabled: bool = True
    expires_at: Expiry = None

    _text = field_validator("expires_at", mode="before")(_zoned)
    _zone = field_validator("expires_at")(_with_zone)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.pdq is None) == (self.item_id is None):
            raise ValueError("give pdq or item_id")
        return self


class EntryChangeIn(Sent):
    """What shall be otherwise; absent members stay."""

    reason: Reason = None
    comment: Comment = None
    share: Share = 1.0
    enabled: bool = True
    expires_at: Expiry = None

    _text = field_validator("expires_at", mode="before")(_zoned)
    _zone = field_validator("expires_at")(_with_zone)


class BankOut(BaseModel):
    """A bank, and its entries by state. `shared`: the installation's, which holds for every account."""

    id: UUID
    name: str
    kind: BankKind
    description: str | None
    shared: bool
    distance: int
    quality: int
    enabled: bool
    entries: dict[EntryState, int] | None = Field(description="null for a shared bank: what is in it is not shown.")
    created_at: datetime
    created_by: str | None


class BanksOut(BaseModel):
    """The banks that hold for the account, its own first."""

    banks: list[BankOut]


class ChangeOut(BaseModel):
    """A change that is worked off over the pictures there are, newest first. `results` were decided again, `changed` of
    them have another verdict or reason now, `kept` pictures a person had approved: they are in the review queue."""

    id: UUID
    entry_id: UUID | None = Field(description="null: of many entries.")
    mode: Literal["match", "recheck", "surge"] = Field(
        description="match: new entries look for pictures; recheck: what they hit before is decided again; surge: what"
        " an entry hit in the hour before its quarantine."
    )
    state: ChangeState
    pictures: int = Field(description="Pictures that it concerns; 0 while they are being looked for.")
    results: int
    changed: int
    kept: int
    by: str
    created_at: datetime
    finished_at: datetime | None


class ChangesOut(BaseModel):
    """The newest changes of a bank, at most 20."""

    changes: list[ChangeOut]


class EntryOut(BaseModel):
    """An entry. `state`: `quarantined` ones hit too much and wait for somebody to release or remove them; `wide` ones
    count, but found too many of the pictures there were: release (they are meant to) or remove them."""

    id: UUID
    bank_id: UUID
    pdq: str
    state: EntryState
    enabled: bool
    share: float
    reason: str | None
    source: str | None
    external_id: str | None
    comment: str | None
    sha256: str | None = Field(description="Of the picture that it was made from, if it was made from an item.")
    added_by: str
    added_at: datetime
    expires_at: datetime | None
    quarantined_at: datetime | None
    wide: int | None = Field(description="Of a wide entry: how many pictures it found.")


class EntriesPage(BaseModel):
    """A page of entries, newest first."""

    entries: list[EntryOut]
    next: str | None


class MatchOut(BaseModel):
    """A picture that an entry matches, and the newest item that shows it (null: no result yet)."""

    sha256: str
    distance: int
    seen_at: datetime
    item_id: str | None
    verdict: Verdict | None = Field(description="What counts for that item.")


class MatchesOut(BaseModel):
    """How many of the account's pictures match, and the newest of them."""

    count: int
    pictures: list[MatchOut]


class MatchesPage(BaseModel):
    """A page of what an entry hit, newest first."""

    pictures: list[MatchOut]
    next: str | None


class EntryAddedOut(BaseModel):
    """The entry, what it matches, and the work that decides these pictures again."""

    entry: EntryOut
    matches: MatchesOut
    change: ChangeOut


class EntryChangedOut(BaseModel):
    """The entry, and the work that follows from the change; null where none does."""

    entry: EntryOut
    change: ChangeOut | None


class ImportedOut(BaseModel):
    """What came of a list: entries added, those known already, those removed because the list says that they are gone;
    how many rows were not taken, and the first 100 reasons."""

    added: int
    known: int
    removed: int
    failed: int
    errors: list[FaultOut]
    change: ChangeOut | None


class LookUpHitOut(BaseModel):
    """An entry within its bank's distance of a hash."""

    entry: EntryOut
    bank: str
    kind: BankKind
    distance: int
    counts: bool = Field(description="Whether it decides on pictures now.")


class LookUpOut(BaseModel):
    """What the account's banks know of a hash. `shared_hits`: of a picture that was looked up by its item, entries of
    the installation's banks."""

    pdq: str
    quality: int | None = Field(description="Of the item's picture.")
    entries: list[LookUpHitOut] = Field(description="At most 100, the nearest first.")
    shared_hits: int
