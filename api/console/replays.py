"""What-if and deciding again, as pages: a policy over stored results, what would change, and samples to look at.

It adds to the pages of policies, which link here; the counting is maintenance's.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from flask import Response
from markupsafe import Markup
from pydantic import Field

from api import paging
from api.console import charts
from api.console.pages import Form, PageCall, Pages
from api.console.rendering import fragment, redirect, render
from api.errors import Fault, Problem
from api.routing import Parameters
from db import policies, policy, policy_text, replays
from db.errors import Conflict
from db.policy_rules import PolicyError
from db.replay_tables import Replay
from db.states import VERDICTS
from db.whatif import Window

PAGE: Final = 25
MAX_FORM: Final = 1 << 20
KINDS: Final = {"approve": "good", "review": "warn", "reject": "bad"}

pages = Pages("replays")


class ReplayForm(Form):
    """What to replay: a stored version, or the text of a draft that is not saved."""

    kind: Literal["what_if", "redecide"] = "what_if"
    policy: str | None = Field(default=None, max_length=200)
    version: int | None = Field(default=None, ge=0, lt=2**31)
    source: str | None = Field(default=None, max_length=200_000)
    days: float = Field(default=7, gt=0, le=400)
    context: str | None = Field(default=None, max_length=64)
    everything: bool = False


class ReplaysQuery(Parameters):
    """Which page."""

    cursor: str | None = Field(default=None, max_length=100)


@pages.page("GET", "/console/replays", role="viewer", title="Replays of policies", query=ReplaysQuery)
def index(call: PageCall, query: ReplaysQuery) -> Response:
    """The account's replays, newest first."""
    after = paging.run_of(query.cursor) if query.cursor is not None else None
    with call.transaction() as session:
        found = replays.page(session, call.account_id, after=after, limit=PAGE + 1)
    shown = found[:PAGE]
    more = f"/console/replays?cursor={paging.after_run(shown[-1].id)}" if len(found) > PAGE else None
    return render(call, "replays.html", replays=shown, more=more, first=query.cursor is not None)


@pages.page("POST", "/console/replays", role="curator", max_form=MAX_FORM)
def create(call: PageCall) -> Response:
    """Queue a replay and go to its page."""
    asked = call.checked(ReplayForm)
    if asked.kind == "redecide" and not call.may("admin"):
        raise Problem("missing_role", "Deciding results again needs the role admin.")
    until = datetime.now(UTC)
    with call.transaction() as session:
        if asked.source is not None and asked.kind == "what_if":
            tried = _draft(asked.source)
            rules, document = tried.policy, {**tried.document, "version": 0}
        elif asked.policy is not None:
            row = policies.get(session, call.account_id, asked.policy, asked.version)
            if asked.kind == "redecide" and row.state != "active":
                raise Conflict(f"{row.ref} is {row.state}: only an active version decides again.")
            rules, document = policy.validate(row.document), row.document
        else:
            raise Problem("invalid_form", "Choose a policy.")
        by = rules.name if asked.kind == "redecide" and not asked.everything else None
        window = Window(until - timedelta(days=asked.days), until, context=asked.context, policy=by)
        run = replays.enqueue(session, call.account_id, asked.kind, rules, document, window, actor=call.actor)
    return redirect(call, f"/console/replays/{run.id}")


@pages.page("GET", "/console/replays/<uuid:replay_id>", role="viewer", title="What-if")
def show(call: PageCall, replay_id: UUID) -> Response:
    """How far it is, and what came of it."""
    values = _values(call, replay_id)
    return render(call, "replay.html", title=_title(values["run"]), **values)


@pages.page("GET", "/console/replays/<uuid:replay_id>/live", role="viewer")
def live(call: PageCall, replay_id: UUID) -> Response:
    """The part of the page that changes while it is looked at."""
    return fragment(call, "replay_live.html", **_values(call, replay_id))


@pages.page("POST", "/console/replays/<uuid:replay_id>/cancel", role="curator")
def cancel(call: PageCall, replay_id: UUID) -> Response:
    """It ends within seconds; what was written stays."""
    with call.transaction() as session:
        replays.cancel(session, call.account_id, replay_id, actor=call.actor)
    return redirect(call, f"/console/replays/{replay_id}", "It is cancelled.")


def _draft(source: str) -> policy_text.Written:
    try:
        return policy_text.read(source)
    except PolicyError as error:
        faults = [Fault("invalid_value", each.detail, field=each.field, line=each.line) for each in error.faults]
        raise Problem("invalid_policy", "The draft is not a policy.", faults) from None


def _values(call: PageCall, replay_id: UUID) -> dict[str, Any]:
    with call.transaction() as session:
        run = replays.get(session, call.account_id, replay_id)
    result = run.result
    return {
        "run": run,
        "result": result,
        "open": run.state in ("queued", "running"),
        "by_rule": None if not result else charts.bars(_by_rule(result), label="Changed verdicts by the rule"),
        "load": None if not result or len(result["days"]) < 2 else _load(result["days"]),
        "kinds": KINDS,
        "verdicts": VERDICTS,
    }


def _title(run: Replay) -> str:
    return f"{'What-if' if run.kind == 'what_if' else 'Deciding again'}: {run.policy}"


def _by_rule(result: dict[str, Any]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for flip in result["flips"]:
        for rule in flip["rules"]:
            name = rule["rule"] or "no rule"
            counts[name] = counts.get(name, 0) + rule["count"]
    return counts


def _load(days: list[dict[str, Any]]) -> Markup:
    """Pictures a day that people would have to look at."""
    return charts.line(
        {
            side: [(float(number), float(day[side]["review"])) for number, day in enumerate(days)]
            for side in ("before", "after")
        },
        label="Reviews by day",
        x=lambda number: days[min(len(days) - 1, max(0, round(number)))]["day"],
    )
