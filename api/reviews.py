"""The review queue over HTTP: claim, look, decide, take back. What a claim or a decision is: `db.review_leases`,
`db.review_verdicts`. The reviewer of a call is its key."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.auth import require
from api.errors import Fault, Problem
from api.review_schemas import (
    AnswerIn,
    ClaimedOut,
    ClaimIn,
    DecidedOut,
    Level,
    ManyAnswersIn,
    ManyDecidedOut,
    ReviewAnswerIn,
    ReviewOut,
    ReviewsPage,
    State,
    UndoIn,
)
from api.routing import Answer, Call, Parameters, Routes
from api.small_body import checked, small_json
from db import review_leases, review_undo, review_verdicts, review_views
from db.review_leases import Filter
from db.review_tables import ReviewTask
from db.review_verdicts import Decided
from db.session import Session

MAX_BODY: Final = 1024 * 1024
CURATOR: Final = "policies:write"
"""The scope that makes a key a curator's: who may say what is allowed may also settle what reviewers cannot."""
BODY_ERRORS: Final = (
    "body_incomplete", "body_timeout", "body_too_large", "invalid_body", "invalid_json", "unsupported_encoding",
    "unsupported_media_type",
)  # fmt: skip
MOVE_ERRORS: Final = (*BODY_ERRORS, "not_found", "stale_review")

routes = Routes("reviews", "Pictures that people shall look at: the queue, decisions, and how right they are.")


def require_curator(call: Call) -> None:
    """Problem `missing_scope` unless the key is a curator's."""
    assert call.principal is not None
    require(call.principal, CURATOR)


def shown(call: Call, session: Session, tasks: Sequence[ReviewTask], *, near: bool = True) -> list[ReviewOut]:
    """Tasks as answers show them."""
    found = review_views.views(session, call.account_id, tasks, near=near)
    return [ReviewOut.model_validate(view, from_attributes=True) for view in found]


class ReviewsQuery(Parameters):
    """Which reviews."""

    state: State = "open"
    level: Level | None = None
    policy: str | None = Field(default=None, max_length=200, description="A name, with or without its version.")
    reason: str | None = Field(default=None, max_length=200)
    category: str | None = Field(default=None, max_length=200)
    context: str | None = Field(default=None, max_length=64)
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=500, description="Reviews of a page.")


@routes.route(
    "GET",
    "/v1/reviews",
    scope="reviews:read",
    summary="List reviews",
    query=ReviewsQuery,
    answers={200: Answer("A page, newest first, and what waits in all.", ReviewsPage)},
    errors=("invalid_cursor", "invalid_parameter"),
)
def index(call: Call, query: ReviewsQuery) -> Response:
    """To look only: to decide, claim. Second opinions are counted and not listed; known answers are neither."""
    before = paging.review_of(query.cursor) if query.cursor is not None else None
    which = Filter(query.policy, query.reason, query.category, query.context)
    with call.transaction() as session:
        found = review_views.page(
            session,
            call.account_id,
            state=query.state,
            which=which,
            level=query.level,
            before=before,
            limit=query.limit + 1,
        )
        page = found[: query.limit]
        answer = ReviewsPage.model_validate(
            {
                "reviews": shown(call, session, page, near=False),
                "counts": [vars(count) for count in review_views.counts(session, call.account_id)],
                "next": paging.after_review(page[-1].id) if len(found) > len(page) else None,
            }
        )
    return json_answer(answer)


@routes.route(
    "POST",
    "/v1/reviews/claim",
    scope="reviews:write",
    summary="Claim reviews",
    body={"application/json": ClaimIn},
    answers={200: Answer("Yours for a while; none when nothing waits.", ClaimedOut)},
    errors=(*BODY_ERRORS, "missing_scope"),
)
def claim(call: Call) -> Response:
    """The next ones in the order of the queue: risk × exposure × age. Nobody else gets them before `lease_until`; you
    hold 100 at most. Decide, skip, escalate or release each with its `version`."""
    body, _ = small_json(call)
    asked = checked(ClaimIn, {} if body is None else body)
    if asked.curator:
        require_curator(call)
    with call.transaction() as session:
        found = review_leases.claim(
            session,
            call.account_id,
            call.actor,
            count=asked.count,
            which=Filter(asked.policy, asked.reason, asked.category, asked.context),
            curator=asked.curator,
            lease_s=call.settings.review_lease_s,
            gold_share=call.settings.review_gold_share,
        )
        return json_answer(ClaimedOut(reviews=shown(call, session, found)))


@routes.route(
    "GET",
    "/v1/reviews/<uuid:review_id>",
    scope="reviews:read",
    summary="Read a review",
    answers={200: Answer("The review.", ReviewOut)},
    errors=("not_found",),
)
def read(call: Call, review_id: UUID) -> Response:
    """With its comments and its near-duplicates among what waits."""
    with call.transaction() as session:
        return one(call, session, review_leases.get(session, call.account_id, review_id, call.actor))


@routes.route(
    "POST",
    "/v1/reviews/<uuid:review_id>/decide",
    scope="reviews:write",
    summary="Decide a review",
    body={"application/json": AnswerIn},
    answers={200: Answer("It has ended, and the near-duplicates with it.", DecidedOut)},
    errors=MOVE_ERRORS,
)
def decide(call: Call, review_id: UUID) -> Response:
    """The verdict holds for these bytes in this context: it outranks the machine's, in reruns too."""
    body, _ = small_json(call)
    asked = checked(AnswerIn, {} if body is None else body)
    with call.transaction() as session:
        made = review_verdicts.decide(
            session,
            call.account_id,
            call.actor,
            answer(review_id, asked),
            second_share=call.settings.review_second_share,
        )
        return json_answer(DecidedOut.model_validate(_ended(call, session, [made])))


@routes.route(
    "POST",
    "/v1/reviews/decide",
    scope="reviews:write",
    summary="Decide many reviews",
    body={"application/json": ManyAnswersIn},
    answers={200: Answer("What was decided, and what was not and why.", ManyDecidedOut)},
    errors=BODY_ERRORS,
)
def decide_many(call: Call) -> Response:
    """Each is taken or refused by itself; what was decided together can be taken back together."""
    body, _ = small_json(call, MAX_BODY)
    asked = checked(ManyAnswersIn, body)
    answers = [answer(each.id, each, n) for n, each in enumerate(asked.decisions)]
    with call.transaction() as session:
        made = review_verdicts.decide_many(
            session, call.account_id, call.actor, answers, second_share=call.settings.review_second_share
        )
        refused = [
            {"id": task_id, "code": error.code, "detail": error.detail} for task_id, error in made.refused.items()
        ]
        ended = _ended(call, session, made.decided)
        return json_answer(ManyDecidedOut.model_validate({**ended, "refused": refused}))


@routes.route(
    "POST",
    "/v1/reviews/undo",
    scope="reviews:write",
    summary="Take decisions back",
    body={"application/json": UndoIn},
    answers={200: Answer("Open again, and yours; empty when there is nothing to take back.", ClaimedOut)},
    errors=(*BODY_ERRORS, "not_found", "conflict"),
)
def undo_many(call: Call) -> Response:
    """All of these or none; without ids, what you decided last, together."""
    body, _ = small_json(call)
    asked = checked(UndoIn, {} if body is None else body)
    return _undone(call, asked.ids)


@routes.route(
    "POST",
    "/v1/reviews/<uuid:review_id>/undo",
    scope="reviews:write",
    summary="Take a decision back",
    answers={200: Answer("Open again, and yours.", ClaimedOut)},
    errors=("not_found", "conflict"),
)
def undo(call: Call, review_id: UUID) -> Response:
    """For 15 minutes (TAGMILL_REVIEW_UNDO_S), unless another person has looked at the picture since."""
    return _undone(call, [review_id])


def answer(review_id: UUID, asked: AnswerIn | ReviewAnswerIn, item: int | None = None) -> review_verdicts.Answer:
    """What the data layer takes; Problem `invalid_body` for a rejection without a reason."""
    if asked.verdict == "reject" and asked.code is None:
        fault = Fault("missing", "A rejection needs a reason.", field="code", item=item)
        raise Problem("invalid_body", "See `errors`.", [fault])
    return review_verdicts.Answer(
        review_id, asked.version, asked.verdict, asked.code, asked.text, asked.comment, tuple(asked.near)
    )


def _undone(call: Call, ids: Sequence[UUID]) -> Response:
    settings = call.settings
    with call.transaction() as session:
        wanted = ids or review_undo.last(session, call.account_id, call.actor, settings.review_undo_s)
        found = review_undo.undo(
            session,
            call.account_id,
            call.actor,
            wanted,
            within_s=settings.review_undo_s,
            lease_s=settings.review_lease_s,
        )
        return json_answer(ClaimedOut(reviews=shown(call, session, found)))


def _ended(call: Call, session: Session, made: Sequence[Decided]) -> dict[str, object]:
    tasks = [task for each in made for task in each.tasks]
    left = [review_id for each in made for review_id in each.left]
    return {"decided": shown(call, session, tasks, near=False), "left": left}


def one(call: Call, session: Session, task: ReviewTask) -> Response:
    """The answer of what moves one task."""
    return json_answer(shown(call, session, [task])[0])
