"""What a reviewer does with a claimed review besides deciding it: escalate, skip, give back; and comments on any."""

from uuid import UUID

from flask import Response

from api.review_schemas import CommentIn, EscalateIn, ReviewOut, VersionIn
from api.reviews import BODY_ERRORS, MOVE_ERRORS, one, routes
from api.routing import Answer, Call
from api.small_body import checked, small_json
from db import review_leases


@routes.route(
    "POST",
    "/v1/reviews/<uuid:review_id>/escalate",
    scope="reviews:write",
    summary="Escalate a review",
    body={"application/json": EscalateIn},
    answers={200: Answer("It waits for a curator.", ReviewOut)},
    errors=(*MOVE_ERRORS, "conflict"),
)
def escalate(call: Call, review_id: UUID) -> Response:
    """You do not get it again."""
    body, _ = small_json(call)
    asked = checked(EscalateIn, {} if body is None else body)
    with call.transaction() as session:
        task = review_leases.escalate(session, call.account_id, call.actor, review_id, asked.version, asked.comment)
        return one(call, session, task)


@routes.route(
    "POST",
    "/v1/reviews/<uuid:review_id>/skip",
    scope="reviews:write",
    summary="Skip a review",
    body={"application/json": VersionIn},
    answers={200: Answer("It waits for others.", ReviewOut)},
    errors=MOVE_ERRORS,
)
def skip(call: Call, review_id: UUID) -> Response:
    """For a day (TAGMILL_REVIEW_SKIP_S) it goes to others only."""
    asked = _version(call)
    with call.transaction() as session:
        task = review_leases.skip(
            session, call.account_id, call.actor, review_id, asked, pause_s=call.settings.review_skip_s
        )
        return one(call, session, task)


@routes.route(
    "POST",
    "/v1/reviews/<uuid:review_id>/release",
    scope="reviews:write",
    summary="Give a review back",
    body={"application/json": VersionIn},
    answers={200: Answer("It waits as before.", ReviewOut)},
    errors=MOVE_ERRORS,
)
def release(call: Call, review_id: UUID) -> Response:
    """As if it had not been claimed."""
    asked = _version(call)
    with call.transaction() as session:
        return one(call, session, review_leases.release(session, call.account_id, call.actor, review_id, asked))


@routes.route(
    "POST",
    "/v1/reviews/<uuid:review_id>/comment",
    scope="reviews:write",
    summary="Comment on a review",
    body={"application/json": CommentIn},
    answers={200: Answer("The review, with the comment.", ReviewOut)},
    errors=(*BODY_ERRORS, "not_found"),
)
def comment(call: Call, review_id: UUID) -> Response:
    """For whoever looks at it next. It needs no claim."""
    body, _ = small_json(call)
    asked = checked(CommentIn, {} if body is None else body)
    with call.transaction() as session:
        task = review_leases.get(session, call.account_id, review_id, call.actor)
        review_leases.remark(session, call.account_id, call.actor, task, asked.text)
        return one(call, session, task)


def _version(call: Call) -> int:
    body, _ = small_json(call)
    return checked(VersionIn, {} if body is None else body).version
