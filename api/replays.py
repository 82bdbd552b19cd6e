"""Replays: what a policy would have decided, and deciding a window of results again. The work is maintenance's."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.errors import Fault, Problem
from api.replay_schemas import ReplayIn, ReplayOut, ReplaysPage
from api.routing import Answer, Call, Parameters, Routes
from api.small_body import checked, small_json
from db import policies, policy, policy_text, replays
from db.errors import BadSelection, Conflict
from db.policy import Policy
from db.policy_rules import PolicyError
from db.replay_tables import Replay
from db.session import Session
from db.whatif import Window

MAX_BODY: Final = 512 * 1024
ANY: Final = "*"

routes = Routes("replays", "A policy over the results that are stored: what it would change, and changing it.")


@routes.route(
    "POST",
    "/v1/replays",
    scope="policies:write",
    summary="Replay a policy",
    body={"application/json": ReplayIn},
    answers={202: Answer("Accepted: maintenance counts.", ReplayOut, headers={"Location": "The replay."})},
    errors=(
        "body_incomplete", "body_timeout", "body_too_large", "conflict", "invalid_body", "invalid_json",
        "invalid_policy", "not_found", "unsupported_encoding", "unsupported_media_type",
    ),
)  # fmt: skip
def create(call: Call) -> Response:
    """`what_if` replays a stored version, or the text of one that is nowhere stored, over the scores, tags, facts and
    bank hits of the account's results in a window, and counts which verdicts would change, by which rules: no network
    runs and nothing is changed. `redecide` writes what changes, newest first, by the active version; what people
    decided stays, and what was there before is kept in the record of decisions. Asked for twice, the second finds
    nothing left to change."""
    body, _ = small_json(call, MAX_BODY)
    asked = checked(ReplayIn, {} if body is None else body)
    with call.transaction() as session:
        rules, document = _rules(call, session, asked)
        try:
            run = replays.enqueue(
                session, call.account_id, asked.kind, rules, document, _window(asked, rules),
                actor=call.actor,
            )  # fmt: skip
        except BadSelection as error:
            raise Problem(
                "invalid_body", "See `errors`.", [Fault("invalid_value", str(error), field="until")]
            ) from None
        answer = _out(call, run)
    return json_answer(answer, 202, {"Location": answer.url})


class ReplaysQuery(Parameters):
    """Which page."""

    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Replays of a page.")


@routes.route(
    "GET",
    "/v1/replays",
    scope="policies:read",
    summary="List replays",
    query=ReplaysQuery,
    answers={200: Answer("A page, newest first.", ReplaysPage)},
    errors=("invalid_cursor", "invalid_parameter"),
)
def index(call: Call, query: ReplaysQuery) -> Response:
    """The account's replays."""
    after = paging.run_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = replays.page(session, call.account_id, after=after, limit=query.limit + 1)
    shown = found[: query.limit]
    more = paging.after_run(shown[-1].id) if len(found) > len(shown) else None
    return json_answer(ReplaysPage(replays=[_out(call, run) for run in shown], next=more))


@routes.route(
    "GET",
    "/v1/replays/<uuid:replay_id>",
    scope="policies:read",
    summary="Read a replay",
    answers={200: Answer("The replay, with what it came to.", ReplayOut)},
    errors=("not_found",),
)
def read(call: Call, replay_id: UUID) -> Response:
    """How far it is, and once it is finished: verdicts before and after, flips by rule with samples, load by day."""
    with call.transaction() as session:
        return json_answer(_out(call, replays.get(session, call.account_id, replay_id)))


@routes.route(
    "POST",
    "/v1/replays/<uuid:replay_id>/cancel",
    scope="policies:write",
    summary="Cancel a replay",
    answers={200: Answer("The replay.", ReplayOut)},
    errors=("conflict", "not_found"),
)
def cancel(call: Call, replay_id: UUID) -> Response:
    """It ends within seconds. What a re-decision has written by then stays."""
    with call.transaction() as session:
        run = replays.cancel(session, call.account_id, replay_id, actor=call.actor)
        return json_answer(_out(call, run))


def _rules(call: Call, session: Session, asked: ReplayIn) -> tuple[Policy, dict[str, Any]]:
    """The policy that is asked for, and its document."""
    if (asked.policy is None) == (asked.source is None):
        fault = Fault("missing", "Give the name of a stored policy, or the text of one.", field="policy")
        raise Problem("invalid_body", "See `errors`.", [fault])
    if asked.source is not None:
        if asked.kind == "redecide":
            fault = Fault("invalid_value", "Only a stored policy decides again: save and activate it.", field="source")
            raise Problem("invalid_body", "See `errors`.", [fault])
        try:
            tried = policy_text.read(asked.source)
        except PolicyError as error:
            faults = [Fault("invalid_value", each.detail, field=each.field, line=each.line) for each in error.faults]
            raise Problem("invalid_policy", "See `errors`.", faults) from None
        return tried.policy, {**tried.document, "version": 0}
    assert asked.policy is not None
    row = policies.get(session, call.account_id, asked.policy, asked.version)
    if asked.kind == "redecide" and row.state != "active":
        raise Conflict(f"{row.ref} is {row.state}: only an active version decides again.")
    return policy.validate(row.document), row.document


def _window(asked: ReplayIn, rules: Policy) -> Window:
    by = asked.decided_by
    if by is None and asked.kind == "redecide":
        by = rules.name
    return Window(
        since=asked.since,
        until=asked.until or datetime.now(UTC),
        context=asked.context,
        job=asked.job,
        policy=None if by == ANY else by,
    )


def _out(call: Call, run: Replay) -> ReplayOut:
    return ReplayOut.model_validate(
        {
            **{name: getattr(run, name) for name in _SAME},
            "url": f"{call.settings.public_url}/v1/replays/{run.id}",
            "context": run.selection.get("context"),
            "job": run.selection.get("job"),
            "decided_by": run.selection.get("policy"),
        }
    )


_SAME: Final = (
    "id", "kind", "state", "policy", "since", "until", "analyses", "changed", "result", "code", "detail", "created_at",
    "started_at", "ended_at",
)  # fmt: skip
