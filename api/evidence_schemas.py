"""The shapes of appeals, statements of reasons and the audit log on the wire. No behaviour."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.moderation_schemas import SubjectOut
from api.schemas import PLAIN, Sent, Verdict

MAX_TEXT = 4000
MAX_CONTACT = 320
WORDS = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
AppealState = Literal["open", "upheld", "overturned", "withdrawn"]
DecisionKind = Literal["automatic", "policy", "bank", "rerun", "review", "appeal"]


class AppealIn(Sent):
    """What the subject says against the verdict."""

    text: str = Field(min_length=1, max_length=MAX_TEXT, pattern=WORDS, description="In the subject's words.")
    contact: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CONTACT,
        pattern=PLAIN,
        description="Where you will send the answer; kept with the appeal and shown to nobody but you.",
    )


class AppealAnswerOut(BaseModel):
    """The decision that answered an appeal. Who made it is in nobody's answer."""

    verdict: Literal["approve", "reject"] | None
    code: str | None
    text: str | None
    at: datetime


class AppealOut(BaseModel):
    """An appeal. `upheld`: the picture stays rejected; `overturned`: it is approved."""

    id: UUID
    url: str
    item_id: str
    moderation_id: UUID | None
    context: str
    state: AppealState
    verdict: Verdict = Field(description="The verdict that it is against.")
    code: str | None = Field(description="The reason code of that verdict.")
    policy: str | None
    text: str
    contact: str | None
    created_at: datetime
    decided_at: datetime | None
    answer: AppealAnswerOut | None
    links: dict[str, str]


class AppealsPage(BaseModel):
    """Appeals, newest first. `next` is the cursor of the following page, null at the end."""

    appeals: list[AppealOut]
    next: str | None


class StatedDecisionOut(BaseModel):
    """By whom (a person or the machine), how and when it was decided. `id`: the person's decision."""

    id: UUID | None
    kind: DecisionKind
    decided_by: Literal["automation", "person"]
    received_at: datetime | None
    decided_at: datetime | None


class ReliedOnOut(BaseModel):
    """The facts that the verdict relies on: the bytes by their hash, reasons with scores and thresholds, bank hits."""

    content: dict[str, Any]
    reasons: list[dict[str, Any]]
    scores: dict[str, float] | None
    bank_hits: list[dict[str, Any]]


class StatedAutomationOut(BaseModel):
    """The use of automated means. `detection`: a rule found something; doubt alone is nothing found. `decision`: the
    machine decided, too; a verdict of review is no decision."""

    detection: bool
    decision: Literal["fully", "not"]
    automatic_verdict: Verdict | None
    model: str | None


class GroundOut(BaseModel):
    """The term of the policy that the picture breaks."""

    kind: Literal["contractual"]
    policy: str | None
    rule: str | None
    code: str | None
    text: str | None


class RedressOut(BaseModel):
    """What can be done about it here. `refusal`: why there can be no appeal."""

    appeal_possible: bool
    appeal_url: str | None = Field(description="Where to POST an appeal.")
    refusal: str | None
    appeal_id: UUID | None = Field(description="The last appeal on this item.")
    appeal_state: AppealState | None


class StatementOut(BaseModel):
    """A statement of reasons, with the parts of Article 17 of Regulation (EU) 2022/2065 that are known here."""

    item_id: str
    moderation_id: UUID | None
    subject: SubjectOut | None
    context: str
    verdict: Verdict
    decision: StatedDecisionOut
    facts: ReliedOnOut
    automation: StatedAutomationOut
    ground: GroundOut
    redress: RedressOut
    law: str


class AuditEntryOut(BaseModel):
    """An entry of the audit log. `seq` and `hash`: its place in the chain; null until it has one, about a second."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    seq: int | None
    hash: str | None


class AuditPage(BaseModel):
    """Entries, newest first. `next` is the cursor of the following page, null at the end."""

    entries: list[AuditEntryOut]
    next: str | None


class AuditFindingOut(BaseModel):
    """Something wrong with the log."""

    what: Literal["edited", "removed", "inserted", "unsealed"]
    detail: str
    seq: int | None
    entry: int | None


class AuditCheckOut(BaseModel):
    """What recomputing the chain came to. `findings`: what is wrong, in the order of the chain, at most 100."""

    sound: bool = Field(description="Nothing is wrong in what was looked at.")
    complete: bool = Field(description="The end of the chain was reached; else go on at `next`.")
    entries: int = Field(description="Entries whose hash was recomputed.")
    evidence: int = Field(description="Digests of this account's decisions and verdicts that were recomputed.")
    head: str | None = Field(description="`SEQ:HASH` of the last one. Keep it elsewhere.")
    next: int | None
    waiting: int | None = Field(description="Entries without a seal yet; null unless complete.")
    findings: list[AuditFindingOut]
