"""The shapes on the wire, as pydantic models: what a client may send, and what it gets. No behaviour."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from api.storable import Storable
from db.codes import CODES
from db.urls import MAX_URL_LENGTH

MAX_ID = 256
PLAIN = r"^[^\x00-\x1f\x7f]*$"

Refetch = Literal["if_changed", "always"]
# These literals repeat `db.states`, and what the sandbox computes, for type checkers' sake; a test compares them.
Fact = Literal["pdq", "colours", "sharpness"]
Analysis = Literal["tags", "moderation"]
Lane = Literal["interactive", "bulk"]
JobState = Literal["accepted", "running", "finished", "cancelled"]
Outcome = Literal["done", "failed", "cancelled"]
Verdict = Literal["approve", "review", "reject"]
LabelSource = Literal["correction", "decision", "labelling"]
Code = Annotated[str, Field(json_schema_extra={"enum": sorted(CODES)})]


_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sent(Storable):
    """Base of what clients send: JSON types as they are, nothing unknown."""

    model_config = _STRICT


CONTEXT = r"^[a-z0-9_.-]{0,64}$"
POLICY = r"^[a-z0-9][a-z0-9_.-]{0,63}$"


class ItemIn(BaseModel):
    """One picture by URL."""

    # There are millions of them, and each text has a pattern: what Storable looks for is not looked for twice.
    model_config = _STRICT

    url: str = Field(max_length=MAX_URL_LENGTH, description="http or https, no user name or password.")
    id: str | None = Field(
        default=None, min_length=1, max_length=MAX_ID, pattern=PLAIN, description="Your name for the item."
    )
    product_id: str | None = Field(
        default=None, min_length=1, max_length=MAX_ID, pattern=PLAIN, description="The product it shows."
    )
    category: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=PLAIN,
        description="What it is declared to show, in the words of the tagger; policies may compare the two.",
    )


class JobOptions(Sent):
    """What is asked of a job's pictures."""

    analyses: list[Analysis] = Field(default=["tags", "moderation"], min_length=1, max_length=2)
    lane: Lane = Field(default="bulk", description="Interactive jobs go first.")
    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=PLAIN)
    context: str = Field(default="", pattern=CONTEXT, description="Where the pictures are to be shown: avatar, …")
    policy: str | None = Field(
        default=None,
        pattern=POLICY,
        description="The policy that decides; without it, the one assigned to the context.",
    )
    refetch: Refetch = Field(
        default="if_changed",
        description="Of URLs fetched before: `if_changed` asks their servers whether they changed, and bytes that are"
        " known are not decoded again; `always` fetches and decodes everything anew.",
    )
    facts: list[Fact] | None = Field(
        default=None,
        max_length=3,
        description="The content facts to compute; absent: all. What policy and hash banks need is computed anyway.",
    )


class JobIn(JobOptions):
    """A job with its pictures. `items` is read as a stream: its length is bounded by a setting only."""

    items: list[ItemIn] = Field(min_length=1)


class RetryIn(Sent):
    """Which failures to try again; absent: all."""

    only: list[Code] | None = Field(default=None, min_length=1, max_length=100)


class FaultOut(BaseModel):
    """One thing that is wrong with a request."""

    code: str
    detail: str
    field: str | None = None
    line: int | None = Field(default=None, description="Line of a text body, from 1.")
    column: int | None = Field(default=None, description="Column of that line, from 1.")
    item: int | None = Field(default=None, description="Place in the list or archive, from 0.")
    file: str | None = Field(default=None, description="Name of the uploaded file or archive member.")


class ProblemDocument(BaseModel):
    """RFC 9457. `code` is stable; `errors` says what exactly is wrong, at most 100 entries."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FaultOut]
    request_id: str | None


class SkippedOut(BaseModel):
    """What `on_invalid=skip` left out: how many, and the first 100."""

    count: int
    errors: list[FaultOut]


class StageOut(BaseModel):
    """Items of one stage."""

    done: int
    failed: int
    open: int


class ProgressOut(BaseModel):
    """Counts of a job now."""

    ingest: StageOut
    infer: StageOut
    outcomes: dict[str, int] = Field(description="Items by outcome: done, failed, cancelled.")
    codes: dict[str, int] = Field(description="Failed items by code.")
    settled: int = Field(description="Items that have their outcome.")
    rate: float | None = Field(description="Outcomes a second over the last minute.")
    eta_s: float | None = Field(description="Seconds to go at that rate.")
    reused: dict[str, int] = Field(
        description="Items that what was known before spared work: `not_modified` (the server said that our copy is"
        " current), `known_bytes` (fetched, but decoded before), `known_scores` (scored by the same models before)."
    )


class JobOut(BaseModel):
    """A job. `progress` is present where one job is asked for."""

    id: UUID
    url: str
    name: str | None
    state: JobState
    lane: Lane
    analyses: list[Analysis]
    total: int
    models: dict[str, str | None] = Field(description="The model versions pinned at submit, by analysis.")
    context: str
    policy: str = Field(description="The policy pinned at submit, name@version.")
    created_at: datetime
    started_at: datetime | None
    cancelled_at: datetime | None
    settled_at: datetime | None = Field(description="When every item had its outcome.")
    links: dict[str, str]
    progress: ProgressOut | None = None


class JobAccepted(BaseModel):
    """The answer to a submitted job."""

    id: UUID
    url: str
    state: JobState
    total: int
    links: dict[str, str]
    skipped: SkippedOut | None = None


class RetryOut(BaseModel):
    """How many items were put back, and the job."""

    requeued: int
    job: JobOut


class JobsPage(BaseModel):
    """Jobs, newest first. `next` is the cursor of the following page, null at the end."""

    jobs: list[JobOut]
    next: str | None


class TagOut(BaseModel):
    """A label with its score, and the model version that gave it."""

    label: str
    group: str
    score: float
    model: str


class LabelOut(BaseModel):
    """What a person said of a label group: it outranks the model's tags of that group."""

    group: str
    labels: list[str] = Field(description="What is in the picture; of an exclusive group one.")
    absent: list[str] = Field(description="Attributes that are not.")
    source: LabelSource
    by: str = Field(description="Who said it: `key:` and the id of an API key.")
    at: datetime


class DecisionOut(BaseModel):
    """A person's decision on the picture in this context. Who it was is in the audit log only."""

    id: UUID
    verdict: Literal["approve", "reject"]
    kind: Literal["review", "appeal"]
    code: str | None
    text: str | None
    at: datetime


class ModerationOut(BaseModel):
    """The verdict that counts, and what it was made of: scores, the policy, and a person's decision if there is one.

    `automatic` is what the machine said, `null` where nobody asked it; a decision outranks it, in every rerun."""

    verdict: Verdict
    automatic: Verdict | None
    decision: DecisionOut | None
    scores: dict[str, float] | None
    reasons: list[dict[str, Any]]
    policy: str | None
    rule: str | None = Field(default=None, description="The rule of the policy that decided.")
    model: str | None
    hits: list[dict[str, Any]] = Field(default=[], description="Entries of hash banks that the picture matched.")


class ResultRow(BaseModel):
    """The one result row, the same in every format; `outcome` is null while the item is open."""

    id: str = Field(description="Yours, else ours.")
    item_id: str
    product_id: str | None
    url: str | None
    filename: str | None
    outcome: Outcome | None
    code: str | None
    tags: list[TagOut]
    labels: list[LabelOut]
    moderation: ModerationOut | None
    facts: dict[str, Any] | None


class ItemOut(ResultRow):
    """One item in full."""

    job_id: UUID
    seq: int
    detail: str | None
    links: dict[str, str]


class ItemsPage(BaseModel):
    """Items in the order of the submission. `next` is the cursor of the following page, null at the end."""

    items: list[ResultRow]
    next: str | None


class HealthOut(BaseModel):
    """Whether the process can serve, and what each check found."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = {}
