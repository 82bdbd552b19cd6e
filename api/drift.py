"""Drift of an account's sources, as maintenance computed it. Measures nothing."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

from flask import Response
from pydantic import BaseModel, Field

from api.answers import json_answer
from api.routing import Answer, Call, Parameters, Routes
from db import drift
from db.errors import NotFound
from db.learning_tables import DriftRow

routes = Routes("drift", "How far scores and tags have moved from a model's baseline.")

Level = Literal["unknown", "ok", "watch", "drifted"]
MAX_REF = 129  # name@version, 64 characters each


class DriftQuery(Parameters):
    """Which day, and how much of what was before it."""

    day: date | None = Field(default=None, description="A computed day (UTC); without it, the newest.")
    days: int = Field(default=14, ge=1, le=90, description="Days of `history`.")
    model: str | None = Field(default=None, max_length=MAX_REF, description="Only this model, as name@version.")
    level: Level | None = Field(default=None, description="Only sources with this level.")


class BaselineOut(BaseModel):
    """What a day is compared with: the model's newest evaluation, or its first days at the source."""

    kind: Literal["evaluation", "first_days"]
    pictures: int
    id: int | None = Field(default=None, description="Of the evaluation.")
    dataset: str | None = None
    split: str | None = None
    first: date | None = None
    last: date | None = None


class MeasureOut(BaseModel):
    """One comparison: of the scores' histogram (`value` is the population stability index; `live` and `base` are mean
    scores) or of how often a label is given (`value` is the difference of the shares `live` and `base`, in
    `low`…`high`)."""

    what: Literal["scores", "rate"]
    group: str
    label: str | None = Field(description="null: the best score of the group.")
    level: Level
    value: float
    live: float | None = None
    base: float | None = None
    low: float | None = None
    high: float | None = None
    divergence: float | None = Field(default=None, description="Jensen–Shannon, in bits.")


class DriftOut(BaseModel):
    """What a model said of one source's pictures on the day, against its baseline."""

    model: str
    source: str = Field(description="A host, `upload`, `other` (the less frequent ones), or `all`.")
    pictures: int = Field(description="Distinct by bytes.")
    level: Level
    reason: str | None = Field(description="Why it is unknown: too_few_pictures, baseline_too_small, no_baseline.")
    psi: float | None
    baseline: BaselineOut | None
    measures: list[MeasureOut] = Field(description="Those that moved most, most severe first.")


class DriftDayOut(BaseModel):
    """A computed day: sources by level."""

    day: date
    levels: dict[str, int]


class DriftPage(BaseModel):
    """One day, the worst sources first; `day` is null before any was computed."""

    day: date | None
    computed_at: Annotated[datetime | None, Field(description="A day that had not ended then is counted in part.")]
    sources: list[DriftOut]
    history: list[DriftDayOut] = Field(description="That day and those before it, newest first.")


@routes.route(
    "GET",
    "/v1/drift",
    scope="catalog:read",
    summary="Drift of scores and tags by source",
    query=DriftQuery,
    answers={200: Answer("The sources of one day.", DriftPage)},
    errors=("not_found",),
)
def read(call: Call, query: DriftQuery) -> Response:
    """Computed daily by maintenance, for each model and source of the account. 404 for a day that was not computed."""
    with call.transaction() as session:
        found = drift.computed(session, query.day) if query.day else drift.newest_day(session)
        if found is None:
            if query.day is not None:
                raise NotFound("That day was not computed.")
            return json_answer(DriftPage(day=None, computed_at=None, sources=[], history=[]))
        rows = drift.since(session, call.account_id, found.day, found.day)
        before = drift.history(session, call.account_id, found.day, query.days)
    chosen = [row for row in rows if query.model in (None, row.model) and query.level in (None, row.level)]
    page = DriftPage(
        day=found.day,
        computed_at=found.computed_at.astimezone(UTC),
        sources=[_source(row) for row in chosen],
        history=[DriftDayOut(day=day, levels=levels) for day, levels in before],
    )
    return json_answer(page)


def _source(row: DriftRow) -> DriftOut:
    return DriftOut(
        model=row.model,
        source=row.source,
        pictures=row.pictures,
        level=row.level,
        reason=row.reason,
        psi=row.psi,
        baseline=None if row.baseline is None else _baseline(row.baseline),
        measures=[MeasureOut(**measure) for measure in row.measures],
    )


def _baseline(stored: dict[str, Any]) -> BaselineOut:
    return BaselineOut(**{{"from": "first", "to": "last"}.get(name, name): value for name, value in stored.items()})
