"""Policies: read, check, write, activate, assign. What they mean is `db.policy`'s business, where they apply
`db.policy_assignments`'."""

from typing import Any, Final

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.errors import Fault, Problem
from api.policy_schemas import (
    ActivationOut,
    AssignmentIn,
    AssignmentsOut,
    CheckedOut,
    PoliciesPage,
    PolicyHistoryOut,
    PolicyIn,
    PolicyOut,
)
from api.routing import Answer, Call, Parameters, Routes
from api.small_body import checked, small_json
from db import policies, policy, policy_assignments, policy_schema, policy_text, policy_warnings
from db.policy import PolicyError
from db.policy_tables import PolicyAssignment, PolicyVersion
from db.policy_text import Written
from db.session import Session

MAX_BODY: Final = 256 * 1024
BODY_ERRORS: Final = (
    "body_incomplete", "body_timeout", "body_too_large", "invalid_body", "invalid_json", "unsupported_encoding",
    "unsupported_media_type",
)  # fmt: skip
_COPIED: Final = ("name", "version", "state", "created_at", "created_by", "activated_at", "retired_at")

routes = Routes(
    "policies",
    "What decides on pictures: rules over scores, hash banks, content facts, tags, account and context. Versions go"
    " from draft to active to retired; an account changes its own, and reads the installation's.",
)


class PoliciesQuery(Parameters):
    """Which page."""

    cursor: str | None = Field(default=None, max_length=200, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Policies of a page.")


@routes.route(
    "GET",
    "/v1/policies",
    scope="policies:read",
    summary="List policies",
    query=PoliciesQuery,
    answers={200: Answer("A page, by name.", PoliciesPage)},
    errors=("invalid_cursor", "invalid_parameter"),
)
def index(call: Call, query: PoliciesQuery) -> Response:
    """The account's policies and the installation's: of each the active version, else the newest."""
    after = paging.name_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = policies.page(session, call.account_id, after=after, limit=query.limit + 1)
        shown = found[: query.limit]
        more = paging.after_name(shown[-1].name) if len(found) > len(shown) else None
        return json_answer(PoliciesPage.model_validate({"policies": [_version(row) for row in shown], "next": more}))


@routes.route(
    "POST",
    "/v1/policies",
    scope="policies:write",
    summary="Save a policy as a draft",
    body={"application/json": PolicyIn},
    answers={
        201: Answer("The draft: the next version of its name.", PolicyOut, headers={"Location": "The version."}),
    },
    errors=(*BODY_ERRORS, "conflict", "invalid_policy", "policy_name_taken"),
)
def create(call: Call) -> Response:
    """Every text that is saved is a version of its own and never changes; it decides nothing before it is activated.
    What says the same as the newest version is that version. A bad policy is refused, with the line that is wrong."""
    new = _written(call)
    with call.transaction() as session:
        row = policies.add(session, call.account_id, new, actor=call.actor)
        answer = _one(call, session, row)
    return json_answer(answer, 201, {"Location": answer.url})


@routes.route(
    "POST",
    "/v1/policies/validate",
    scope="policies:write",
    summary="Check a policy",
    body={"application/json": PolicyIn},
    answers={200: Answer("It is valid.", CheckedOut)},
    errors=(*BODY_ERRORS, "invalid_policy"),
)
def validate(call: Call) -> Response:
    """Nothing is stored. `invalid_policy` names all that is wrong: field, and in a text line and column."""
    new = _written(call)
    with call.transaction() as session:
        warnings = policy_warnings.warnings(session, call.account_id, new.policy)
    rules, classes = len(new.policy.rules), list(new.policy.classes)
    return json_answer(CheckedOut(name=new.policy.name, rules=rules, classes=classes, warnings=warnings))


@routes.route(
    "GET",
    "/v1/policies/<policy_name>",
    scope="policies:read",
    summary="Read a policy",
    answers={200: Answer("The active version, else the newest.", PolicyOut)},
    errors=("not_found",),
)
def read(call: Call, policy_name: str) -> Response:
    """What decides now; where no version is active, what was written last."""
    with call.transaction() as session:
        return json_answer(_one(call, session, policies.get(session, call.account_id, policy_name)))


@routes.route(
    "GET",
    "/v1/policies/<policy_name>/versions",
    scope="policies:read",
    summary="List a policy's versions",
    answers={200: Answer("All versions, and which was active since when.", PolicyHistoryOut)},
    errors=("not_found",),
)
def versions(call: Call, policy_name: str) -> Response:
    """Nothing is ever removed: whatever decided once can be read."""
    with call.transaction() as session:
        rows = policies.versions(session, call.account_id, policy_name)
        history = policies.history(session, call.account_id, policy_name)
        activations = [{name: getattr(each, name) for name in ActivationOut.model_fields} for each in history]
        answer = {"name": policy_name, "versions": [_version(row) for row in rows], "activations": activations}
        return json_answer(PolicyHistoryOut.model_validate(answer))


@routes.route(
    "GET",
    "/v1/policies/<policy_name>/versions/<int:policy_version>",
    scope="policies:read",
    summary="Read a version of a policy",
    answers={200: Answer("The version.", PolicyOut)},
    errors=("not_found",),
)
def read_version(call: Call, policy_name: str, policy_version: int) -> Response:
    """By the number that results name: `default@1` is version 1 of `default`."""
    with call.transaction() as session:
        return json_answer(_one(call, session, policies.get(session, call.account_id, policy_name, policy_version)))


@routes.route(
    "POST",
    "/v1/policies/<policy_name>/versions/<int:policy_version>/activate",
    scope="policies:write",
    summary="Activate a version",
    answers={200: Answer("The version, active.", PolicyOut)},
    errors=("not_found", "policy_read_only", "conflict"),
)
def activate(call: Call, policy_name: str, policy_version: int) -> Response:
    """The version that was active before is retired. New jobs are decided by this one; what was decided stays, unless
    a replay decides it again. To go back, activate the older version."""
    with call.transaction() as session:
        row = policies.activate(session, call.account_id, policy_name, policy_version, actor=call.actor)
        return json_answer(_one(call, session, row))


@routes.route(
    "POST",
    "/v1/policies/<policy_name>/versions/<int:policy_version>/retire",
    scope="policies:write",
    summary="Retire a version, or drop a draft",
    answers={200: Answer("The version, retired.", PolicyOut)},
    errors=("not_found", "policy_read_only", "policy_in_use"),
)
def retire(call: Call, policy_name: str, policy_version: int) -> Response:
    """An active version can be retired where its policy is assigned nowhere."""
    with call.transaction() as session:
        row = policies.retire(session, call.account_id, policy_name, policy_version, actor=call.actor)
        return json_answer(_one(call, session, row))


@routes.route(
    "GET",
    "/v1/policy-assignments",
    scope="policies:read",
    summary="Read which policy decides where",
    answers={200: Answer("The assignments.", AssignmentsOut)},
)
def assignments(call: Call) -> Response:
    """Of an account and a context, an account, a context and neither, the first that is assigned decides."""
    with call.transaction() as session:
        return json_answer(_assignments(call, session))


@routes.route(
    "PUT",
    "/v1/policy-assignments",
    scope="policies:write",
    summary="Assign a policy",
    body={"application/json": AssignmentIn},
    answers={200: Answer("The assignments.", AssignmentsOut)},
    errors=(*BODY_ERRORS, "conflict", "not_found"),
)
def assign(call: Call) -> Response:
    """From now on the policy decides on the account's new jobs in this context, or in all. It needs an active
    version."""
    body, _ = small_json(call)
    asked = checked(AssignmentIn, {} if body is None else body)
    with call.transaction() as session:
        policy_assignments.assign(session, call.account_id, asked.context, asked.policy, actor=call.actor)
        return json_answer(_assignments(call, session))


@routes.route(
    "GET",
    "/v1/policy-schema",
    scope="policies:read",
    summary="Read the JSON Schema of policies",
    answers={200: Answer("A JSON Schema, 2020-12.", content={"application/json": {"type": "object"}})},
)
def schema(call: Call) -> Response:
    """For editors. What it cannot say (rules with the same id, bounds that leave nothing) validation does."""
    return json_answer(policy_schema.schema())


def problem(error: PolicyError) -> Problem:
    """What is wrong with a policy, each with its place in the text."""
    faults = [
        Fault("invalid_value", each.detail, field=each.field or None, line=each.line, column=each.column)
        for each in error.faults
    ]
    return Problem("invalid_policy", "See `errors`.", faults)


def _written(call: Call) -> Written:
    """The policy in the body. Problems: `invalid_body`, `invalid_policy`, …"""
    body, _ = small_json(call, MAX_BODY)
    asked = checked(PolicyIn, {} if body is None else body)
    try:
        if asked.source is not None and asked.document is None:
            return policy_text.read(asked.source)
        if asked.document is not None and asked.source is None:
            return policy_text.written(asked.document)
    except PolicyError as error:
        raise problem(error) from None
    fault = Fault("missing", "Give `source` or `document`, one of the two.", field="source")
    raise Problem("invalid_body", "See `errors`.", [fault])


def _version(row: PolicyVersion) -> dict[str, Any]:
    owner = "installation" if row.account_id is None else "account"
    return {**{name: getattr(row, name) for name in _COPIED}, "owner": owner}


def _one(call: Call, session: Session, row: PolicyVersion) -> PolicyOut:
    rules = policy.validate(row.document)
    answer = {
        **_version(row),
        "url": f"{call.settings.public_url}/v1/policies/{row.name}/versions/{row.version}",
        "description": rules.description,
        "source": policies.source(row),
        "document": row.document,
        "classes": list(rules.classes),
        "warnings": policy_warnings.warnings(session, call.account_id, rules),
    }
    return PolicyOut.model_validate(answer)


def _assignments(call: Call, session: Session) -> AssignmentsOut:
    current = policy_assignments.current(session, call.account_id)
    history = policy_assignments.history(session, call.account_id)
    return AssignmentsOut.model_validate(
        {"assignments": [_assignment(row) for row in current], "history": [_assignment(row) for row in history]}
    )


def _assignment(row: PolicyAssignment) -> dict[str, Any]:
    owner = "installation" if row.account_id is None else "account"
    return {**{name: getattr(row, name) for name in ("context", "policy", "actor", "created_at")}, "owner": owner}
