"""What a replay is asked for and what it answers."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from api.schemas import Sent

ReplayKind = Literal["what_if", "redecide"]
ReplayState = Literal["queued", "running", "finished", "failed", "cancelled"]


class ReplayIn(Sent):
    """A policy over a window of results."""

    kind: ReplayKind = Field(default="what_if", description="what_if only counts; redecide writes what changes.")
    policy: str | None = Field(default=None, min_length=1, max_length=200, description="Name of a stored policy.")
    version: int | None = Field(default=None, ge=0, lt=2**31, description="Its version; without it, the active one.")
    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=200_000,
        description="Instead of a stored policy: the text of one, YAML or JSON, that is only tried (what_if).",
    )
    since: AwareDatetime = Field(strict=False, description="Results from then on, with a time zone.")
    until: Annotated[AwareDatetime, Field(strict=False)] | None = Field(
        default=None, description="Results before then; without it, up to now."
    )
    context: str | None = Field(default=None, max_length=64, description="Only results of jobs with this context.")
    job: Annotated[UUID, Field(strict=False)] | None = Field(default=None, description="Only results of this job.")
    decided_by: str | None = Field(
        default=None,
        max_length=200,
        description="Only results that a policy of this name decided; `*`: any. Without it, redecide takes those of"
        " the same name and what_if takes any.",
    )


class RuleCountOut(BaseModel):
    """How many verdicts a rule gives; null: no rule held, or something could not be known."""

    rule: str | None
    verdict: str
    count: int


class FlipRuleOut(BaseModel):
    """The rule that decides now, and the one that decided before."""

    rule: str | None
    reason: str | None = Field(default=None, description="Without a rule: the code of why, as `class_not_scored`.")
    was: str | None
    count: int


class FlipOut(BaseModel):
    """Results whose verdict becomes another one."""

    before: str
    after: str
    count: int
    rules: list[FlipRuleOut]
    samples: list[str] = Field(description="Ids of some of these items, the same in every replay.")


class ReplayDayOut(BaseModel):
    """The verdicts of one day (UTC)."""

    day: str
    analyses: int
    before: dict[str, int]
    after: dict[str, int]


class PeopleOut(BaseModel):
    """Pictures that people decided, which no replay changes: how often the verdicts agree with them."""

    decided: int
    before_agrees: int
    after_agrees: int


class ReplayResultOut(BaseModel):
    """What a replay came to. `written`: results that were decided again."""

    analyses: int
    changed: int
    written: int
    seconds: float
    before: dict[str, int]
    after: dict[str, int]
    flips: list[FlipOut]
    rules: list[RuleCountOut]
    days: list[ReplayDayOut]
    people: PeopleOut


class ReplayOut(BaseModel):
    """A replay."""

    id: UUID
    url: str
    kind: ReplayKind
    state: ReplayState
    policy: str = Field(description="name@version")
    since: datetime
    until: datetime
    context: str | None
    job: UUID | None
    decided_by: str | None
    analyses: int = Field(description="Results looked at so far.")
    changed: int = Field(description="Of them, how many change (what_if) or were written (redecide).")
    result: ReplayResultOut | None
    code: str | None
    detail: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class ReplaysPage(BaseModel):
    """A page of replays, newest first."""

    replays: list[ReplayOut]
    next: str | None
