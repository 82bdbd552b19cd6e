"""The shapes of the review queue on the wire, as pydantic models. No behaviour."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.label_schemas import LINES
from api.schemas import CONTEXT, PLAIN, DecisionOut, Sent, TagOut

MAX_MANY = 500
Opinion = Literal["approve", "reject"]
Level = Literal["reviewer", "curator"]
State = Literal["open", "decided", "closed"]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]
Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=LINES)]
Id = Annotated[UUID, Field(strict=False)]
Version = Annotated[int, Field(ge=1, lt=2**31)]


class ClaimIn(Sent):
    """Which reviews, and how many."""

    count: int = Field(default=1, ge=1, le=100)
    policy: Name | None = Field(default=None, description="A name, with or without its version.")
    reason: Name | None = Field(default=None, description="The code of the verdict, `audit`, `appeal`, …")
    category: Name | None = None
    context: str | None = Field(default=None, pattern=CONTEXT)
    curator: bool = Field(
        default=False, description="Also what was escalated, first of all; needs the scope policies:write."
    )


class AnswerIn(Sent):
    """A decision on a review that you hold in this version."""

    version: Version
    verdict: Opinion
    code: str | None = Field(
        default=None, pattern=r"^[a-z0-9_]{1,64}$", description="Why; a rejection needs one. The review lists `codes`."
    )
    text: Text | None = Field(default=None, description="For the person whose picture it is.")
    comment: Text | None = Field(default=None, description="For other reviewers.")
    near: list[Id] = Field(
        default=[], max_length=100, description="Near-duplicates of the review that are decided with it."
    )


class ReviewAnswerIn(AnswerIn):
    """The same, of one review among many."""

    id: Id


class ManyAnswersIn(Sent):
    """Decisions on many reviews."""

    decisions: list[ReviewAnswerIn] = Field(min_length=1, max_length=MAX_MANY)


class VersionIn(Sent):
    """The version in which you hold the review."""

    version: Version


class EscalateIn(VersionIn):
    """Why a curator shall look."""

    comment: Text | None = None


class CommentIn(Sent):
    """A remark for other reviewers."""

    text: Text


class UndoIn(Sent):
    """Which of your decisions; without any, those that you gave last, together."""

    ids: list[Id] = Field(default=[], max_length=MAX_MANY)


class GoldIn(Sent):
    """The right answer to an item's picture."""

    item_id: str = Field(max_length=100)
    verdict: Opinion


class NearOut(BaseModel):
    """An open review of nearly the same picture: PDQ distance in bits, at most 31."""

    id: UUID
    item_id: str
    distance: int


class CommentOut(BaseModel):
    """What a reviewer remarked."""

    by: str
    text: str
    at: datetime


class CodeOut(BaseModel):
    """A reason of the policy, and its text for the person concerned."""

    code: str
    text: str


class ReviewOut(BaseModel):
    """A picture in a context that people shall look at. `moderation`: what the machine said; null where it is not to be
    known (audits). `decision` and `appeal`: what an appeal, or a ban of an approved picture, is about."""

    id: UUID
    version: int
    state: State
    level: Level
    reason: str
    policy: str | None
    context: str
    category: str | None
    item_id: str
    sha256: str
    items: int = Field(description="How many items show the picture in this context; `also` names some.")
    also: list[str]
    product_id: str | None
    filename: str | None
    waiting_since: datetime
    lease_until: datetime | None
    held_by: str | None
    verdict: Opinion | None
    decided_by: str | None
    decided_at: datetime | None
    tags: list[TagOut]
    moderation: dict[str, Any] | None
    decision: DecisionOut | None
    appeal: str | None
    codes: list[CodeOut]
    comments: list[CommentOut]
    near: list[NearOut]


class ClaimedOut(BaseModel):
    """Reviews that are yours until `lease_until`."""

    reviews: list[ReviewOut]


class DecidedOut(BaseModel):
    """Reviews that ended; `left`: near-duplicates that did not, because they changed meanwhile."""

    decided: list[ReviewOut]
    left: list[UUID]


class RefusedOut(BaseModel):
    """A decision that was not taken."""

    id: UUID
    code: str
    detail: str


class ManyDecidedOut(DecidedOut):
    """Decisions that were taken, and those that were not."""

    refused: list[RefusedOut]


class CountOut(BaseModel):
    """How many reviews of a kind wait, how many of them are held, and since when the oldest waits."""

    level: Level
    reason: str
    policy: str | None
    context: str
    open: int
    held: int
    oldest: datetime


class ReviewsPage(BaseModel):
    """Reviews, newest first, and what waits in all."""

    reviews: list[ReviewOut]
    counts: list[CountOut]
    next: str | None


class FigureOut(BaseModel):
    """An estimate with its confidence interval; `n` observations. Null: there is nothing to estimate from."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class StratumOut(BaseModel):
    """What people say of one automatic verdict: how many pictures had it (estimated; of `review` counted), how many of
    them were drawn and answered, and which share people reject."""

    verdict: Literal["approve", "review", "reject"]
    pictures: float
    drawn: int
    answered: int
    rejected: FigureOut


class AutomationOut(BaseModel):
    """`precision` of automatic rejections; `missed`: share of automatic approvals that people would reject; `recall`:
    of what people would reject, the share that was not approved."""

    precision: FigureOut
    missed: FigureOut
    recall: FigureOut
    strata: list[StratumOut]
    confidence: float


class AgreementOut(BaseModel):
    """First and second opinions on the same pictures, in all (`week` null) or in a week (its Monday)."""

    week: date | None
    pairs: int
    agreed: int
    kappa: FigureOut


class ReviewerOut(BaseModel):
    """A reviewer, in all or in a week: against known answers (`gold`), against what was decided in the end (`final`),
    of his rejections the share that was right (`precision`), and his agreement with others."""

    actor: str
    week: date | None
    answers: int
    rejections: int
    gold: FigureOut
    final: FigureOut
    precision: FigureOut
    kappa: FigureOut


class QualityOut(BaseModel):
    """How right the automation and the reviewers are."""

    since: datetime
    until: datetime | None
    automation: AutomationOut
    agreement: list[AgreementOut]
    reviewers: list[ReviewerOut]


class SeenOut(BaseModel):
    """Distinct pictures that a reviewer saw clear on a day (UTC), by the automatic verdict and its strongest class, and
    how often they were shown."""

    actor: str
    day: date
    verdict: str
    main_class: str
    pictures: int
    shown: int


class ExposureOut(BaseModel):
    """Days of reviewers, newest first."""

    limit: int = Field(description="Pictures that a reviewer may see clear in a day; 0: no limit.")
    days: list[SeenOut]


class GoldOut(BaseModel):
    """A known answer."""

    id: UUID
    item_id: str
    context: str
    verdict: Opinion
    added_by: str
    created_at: datetime


class GoldPage(BaseModel):
    """The newest 1,000 known answers."""

    gold: list[GoldOut]
