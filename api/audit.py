"""The audit log: an account's entries, and whether the chain over all of them is whole."""

from flask import Response
from pydantic import Field

from api import paging
from api.answers import json_answer
from api.errors import Fault, Problem
from api.evidence_schemas import AuditCheckOut, AuditEntryOut, AuditFindingOut, AuditPage
from api.routing import Answer, Call, Parameters, Routes
from db import audit
from db.audit_chain import Head, Verifier

routes = Routes("audit", "Who did what, in a log that shows whether it was changed.")
STEP = 500


class AuditQuery(Parameters):
    """Which entries."""

    action: str | None = Field(default=None, max_length=100, description="Only this action, as `appeal.open`.")
    subject: str | None = Field(default=None, max_length=300, description="Only what was done to this.")
    cursor: str | None = Field(default=None, max_length=100, description="`next` of the page before.")
    limit: int = Field(default=paging.DEFAULT_LIMIT, ge=1, le=paging.MAX_LIMIT, description="Entries of a page.")


@routes.route(
    "GET",
    "/v1/audit",
    scope="audit:read",
    summary="List the audit log",
    query=AuditQuery,
    answers={200: Answer("A page, newest first.", AuditPage)},
    errors=("invalid_cursor",),
)
def index(call: Call, query: AuditQuery) -> Response:
    """The account's entries: who did what to what, as ids, counts and digests."""
    before = paging.entry_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = audit.page(
            session,
            call.account_id,
            action=query.action,
            subject=query.subject,
            before=before,
            limit=query.limit + 1,
        )
    shown = found[: query.limit]
    more = paging.after_entry(shown[-1].id) if len(found) > len(shown) else None
    return json_answer(
        AuditPage(entries=[AuditEntryOut.model_validate(e, from_attributes=True) for e in shown], next=more)
    )


class VerifyQuery(Parameters):
    """Which part of the chain."""

    first: int = Field(default=1, ge=1, lt=2**63, description="Start at this seal; the one before it is trusted.")
    limit: int = Field(default=2000, ge=1, le=10_000, description="Most entries in one answer; go on at `next`.")
    expect_head: str | None = Field(
        default=None, max_length=100, description="`head` of an earlier answer: the chain must still go through it."
    )
    evidence: bool = Field(default=True, description="Also recompute the digests of your decisions and verdicts.")


@routes.route(
    "GET",
    "/v1/audit/verify",
    scope="audit:read",
    summary="Verify the audit log",
    query=VerifyQuery,
    answers={200: Answer("What was found; `sound` says whether anything is wrong.", AuditCheckOut)},
    errors=("invalid_parameter",),
)
def verify(call: Call, query: VerifyQuery) -> Response:
    """Recomputes the chain over the entries of all accounts, and what it says of this account's decisions and verdicts.
    The database makes the digests of the entries: against who owns the database, `tagmill audit verify` hashes them
    elsewhere."""
    verifier = Verifier(call.account_id, query.evidence, _head(query.expect_head))
    with call.transaction() as session:
        verifier.begin(session, query.first)
    more = True
    while more and verifier.entries < query.limit:
        with call.transaction() as session:
            more = verifier.step(session, min(STEP, query.limit - verifier.entries))
    if not more:
        with call.transaction() as session:
            verifier.end(session)
    head = verifier.head
    return json_answer(
        AuditCheckOut(
            sound=not verifier.findings,
            complete=not more,
            entries=verifier.entries,
            evidence=verifier.evidence,
            head=str(head) if head.seq else None,
            next=head.seq + 1 if more else None,
            waiting=verifier.loose.waiting if verifier.loose is not None else None,
            findings=[AuditFindingOut.model_validate(each, from_attributes=True) for each in verifier.findings],
        )
    )


def _head(written: str | None) -> Head | None:
    try:
        return None if written is None else Head.parse(written)
    except ValueError as error:
        fault = Fault("invalid_value", str(error), field="expect_head")
        raise Problem("invalid_parameter", "See `errors`.", [fault]) from None
