"""Around the review queue: its pictures, how right machine and reviewers are, known answers, and what reviewers saw."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from flask import Response
from pydantic import AwareDatetime, Field

from api.answers import json_answer
from api.errors import Fault, Problem
from api.pictures import JPEG, jpeg, small, working_copy
from api.review_schemas import ExposureOut, GoldIn, GoldOut, GoldPage, QualityOut, SeenOut
from api.reviews import BODY_ERRORS, routes
from api.routing import Answer, Call, Parameters
from api.small_body import checked, small_json
from db import items, review_agreement, review_exposure, review_gold, review_leases, review_quality
from db.errors import NotFound
from db.ids import item_id
from db.items import ItemView
from db.review_tables import ReviewGold
from db.session import Session

DAYS: Final = 28
SIZE: Final = 480


@routes.route(
    "GET",
    "/v1/reviews/<uuid:review_id>/picture",
    scope="reviews:read",
    summary="Look at a review, veiled",
    answers={200: Answer("Grey and blurred here; never the original.", content=JPEG)},
    errors=("not_found",),
)
def veiled(call: Call, review_id: UUID) -> Response:
    """28 points along its longer side: shapes, and nothing that anybody has to see unasked."""
    with call.transaction() as session:
        item = _item(call, session, review_id)
    return _picture(call, item, veiled=True)


@routes.route(
    "POST",
    "/v1/reviews/<uuid:review_id>/picture",
    scope="reviews:write",
    summary="Look at a review, clear",
    answers={200: Answer("The working copy, small.", content=JPEG)},
    errors=("not_found", "exposure_limit"),
)
def clear(call: Call, review_id: UUID) -> Response:
    """Counted as seen by you; there may be a limit for a day."""
    with call.transaction() as session:
        item = _item(call, session, review_id)
        picture = _picture(call, item, veiled=False)  # what is gone was not seen
        seen = review_exposure.shown([item])
        limit = call.settings.review_exposure_limit
        review_exposure.count(session, call.account_id, call.actor, seen, limit=limit)
    return picture


class QualityQuery(Parameters):
    """Of which time, policy and context."""

    since: AwareDatetime | None = Field(default=None, description=f"Without it: the last {DAYS} days.")
    until: AwareDatetime | None = None
    policy: str | None = Field(
        default=None, max_length=200, description="Only this one's verdicts: a name, with or without its version."
    )
    context: str | None = Field(default=None, max_length=64, description="Only verdicts in this context.")


@routes.route(
    "GET",
    "/v1/reviews/quality",
    scope="reviews:read",
    summary="How right machine and reviewers are",
    query=QualityQuery,
    answers={200: Answer("Figures with confidence intervals.", QualityOut)},
    errors=("invalid_parameter",),
)
def quality(call: Call, query: QualityQuery) -> Response:
    """Precision and recall of the automation from audits (a random share of its verdicts, judged blind); agreement
    (Cohen's kappa) of reviewers, and how right each is by known answers and by what was decided in the end. Formulas:
    docs/review.md. `policy` and `context` choose verdicts of the automation; reviewers are counted over all."""
    since = query.since or datetime.now(UTC) - timedelta(days=DAYS)
    if query.until is not None and query.until <= since:
        fault = Fault("invalid_value", "It is not after `since`.", field="until")
        raise Problem("invalid_parameter", "See `errors`.", [fault])
    with call.transaction() as session:
        automation = review_quality.automation(
            session, call.account_id, since, query.until, policy=query.policy, context=query.context
        )
        people = review_agreement.reviewing(session, call.account_id, since, query.until)
    found = {
        "since": since,
        "until": query.until,
        "automation": automation,
        "agreement": people.agreement,
        "reviewers": people.reviewers,
    }
    return json_answer(QualityOut.model_validate(found, from_attributes=True))


class ExposureQuery(Parameters):
    """Since when."""

    days: int = Field(default=DAYS, ge=1, le=366, description="So many days, with today.")


@routes.route(
    "GET",
    "/v1/reviews/exposure",
    scope="reviews:read",
    summary="What reviewers have seen clear",
    query=ExposureQuery,
    answers={200: Answer("By reviewer and day.", ExposureOut)},
    errors=("invalid_parameter",),
)
def exposure(call: Call, query: ExposureQuery) -> Response:
    """Distinct pictures; a veiled picture does not count."""
    since = datetime.now(UTC).date() - timedelta(days=query.days - 1)
    with call.transaction() as session:
        days = [SeenOut.model_validate(_seen(row)) for row in review_exposure.by_day(session, call.account_id, since)]
    return json_answer(ExposureOut(limit=call.settings.review_exposure_limit, days=days))


@routes.route(
    "GET",
    "/v1/reviews/gold",
    scope="policies:read",
    summary="List known answers",
    answers={200: Answer("Newest first.", GoldPage)},
    errors=("missing_scope",),
)
def known(call: Call) -> Response:
    """Not for reviewers: they must not know which pictures these are."""
    with call.transaction() as session:
        rows = review_gold.every(session, call.account_id)
    return json_answer(GoldPage(gold=[_gold(row) for row in rows]))


@routes.route(
    "POST",
    "/v1/reviews/gold",
    scope="policies:write",
    summary="Keep a known answer",
    body={"application/json": GoldIn},
    answers={201: Answer("It is given to reviewers from now on, unmarked.", GoldOut)},
    errors=(*BODY_ERRORS, "missing_scope", "not_found", "conflict"),
)
def keep(call: Call) -> Response:
    """Not for reviewers. It takes the place of what was kept for the picture in its context."""
    body, _ = small_json(call)
    asked = checked(GoldIn, {} if body is None else body)
    with call.transaction() as session:
        row = review_gold.add(session, call.account_id, call.actor, asked.item_id, asked.verdict)
    return json_answer(_gold(row), 201)


@routes.route(
    "DELETE",
    "/v1/reviews/gold/<uuid:gold_id>",
    scope="policies:write",
    summary="Forget a known answer",
    answers={204: Answer("It is given to nobody any more; what was said of it counts on.")},
    errors=("missing_scope", "not_found"),
)
def forget(call: Call, gold_id: UUID) -> Response:
    """Not for reviewers; what was answered meanwhile stays."""
    with call.transaction() as session:
        review_gold.remove(session, call.account_id, call.actor, gold_id)
    return Response(status=204)


def _item(call: Call, session: Session, review_id: UUID) -> ItemView:
    task = review_leases.get(session, call.account_id, review_id, call.actor)
    item = items.get(session, call.account_id, item_id(task.job_id, task.seq))
    if item.work_key is None or item.facts is None:
        raise NotFound("The review's picture is gone.")
    return item


def _picture(call: Call, item: ItemView, *, veiled: bool) -> Response:
    return jpeg(small(working_copy(call.house.blobs, item), SIZE, veiled=veiled), "no-store")


def _seen(row: review_exposure.Seen) -> dict[str, Any]:
    return {**{name: getattr(row, name) for name in ("actor", "day", "verdict", "pictures", "shown")},
            "main_class": row.class_}  # fmt: skip


def _gold(row: ReviewGold) -> GoldOut:
    copied = {name: getattr(row, name) for name in ("id", "context", "verdict", "added_by", "created_at")}
    return GoldOut.model_validate({**copied, "item_id": item_id(row.job_id, row.seq)})
