"""Deciding on the review page: one picture with its near-duplicates, a selection of the grid, and the way back."""

from typing import Literal
from uuid import UUID

from flask import Response
from pydantic import Field

from api.console.pages import PageCall
from api.console.rendering import redirect
from api.console.review import GRID, HERE, FilterForm, MoveForm, address, go_on, pages
from db import review_leases, review_undo, review_verdicts
from db.errors import DbError
from db.review_verdicts import Answer
from db.session import Session

Chosen = tuple[UUID, int]


@pages.page("POST", f"{HERE}/<uuid:review_id>/decide", role="reviewer", title="Review")
def decide(call: PageCall, review_id: UUID) -> Response:
    """Approve or reject, and on to the next one. A rejection without a reason is asked for one."""
    asked = call.checked(MoveForm)
    code = asked.own_code or asked.code
    if asked.verdict is None or (asked.verdict == "reject" and code is None):
        return redirect(call, address(asked, at=str(review_id)), "Choose a reason to reject it for.", "bad")
    answer = Answer(
        review_id,
        asked.version,
        asked.verdict,
        code if asked.verdict == "reject" else None,
        asked.text,
        asked.comment,
        tuple(asked.near),
    )
    with call.transaction() as session:
        share = call.settings.review_second_share
        made = review_verdicts.decide(session, call.account_id, call.actor, answer, second_share=share)
        go_on(call, session, asked)
    many = len(made.tasks)
    words = "Approved" if asked.verdict == "approve" else "Rejected"
    near = "a near-duplicate" if many == 2 else f"{many - 1} near-duplicates"
    return redirect(call, address(asked), f"{words}." if many == 1 else f"{words}, with {near}.")


class ManyForm(FilterForm):
    """A selection of the grid, and what becomes of it. Each of `chosen` is an id and a version: `ID:VERSION`."""

    chosen: list[str] = Field(default=[], max_length=4 * GRID)
    action: Literal["approve", "reject", "escalate", "skip"]
    code: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,64}$")
    own_code: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,64}$")


@pages.page("POST", f"{HERE}/many", role="reviewer", title="Review")
def many(call: PageCall) -> Response:
    """The same for every picture that is chosen; the next page comes when this one is done."""
    asked = call.checked(ManyForm)
    picked = [pair for each in asked.chosen if (pair := _pair(each)) is not None]
    code = asked.own_code or asked.code
    if not picked:
        return redirect(call, address(asked), "Choose pictures first.", "bad")
    if asked.action == "reject" and code is None:
        return redirect(call, address(asked), "Choose a reason to reject them for.", "bad")
    with call.transaction() as session:
        done = _decided(call, session, picked, asked.action, code)
        go_on(call, session, asked)
    words = {"approve": "approved", "reject": "rejected", "escalate": "escalated", "skip": "skipped"}[asked.action]
    lost = len(picked) - done
    message = f"{done} {words}." + (f" {lost} had moved on." if lost else "")
    return redirect(call, address(asked), message, "note" if lost else "good")


def _decided(call: PageCall, session: Session, picked: list[Chosen], action: str, code: str | None) -> int:
    """How many of them it could be done to."""
    if action in ("approve", "reject"):
        because = code if action == "reject" else None
        answers = [Answer(review_id, version, action, because) for review_id, version in picked]
        share = call.settings.review_second_share
        made = review_verdicts.decide_many(session, call.account_id, call.actor, answers, second_share=share)
        return len(made.decided)
    done = 0
    for review_id, version in sorted(picked):
        try:
            if action == "skip":
                pause_s = call.settings.review_skip_s
                review_leases.skip(session, call.account_id, call.actor, review_id, version, pause_s=pause_s)
            else:
                review_leases.escalate(session, call.account_id, call.actor, review_id, version)
        except DbError:
            continue  # it has moved on; nothing was written
        done += 1
    return done


@pages.page("POST", f"{HERE}/undo", role="reviewer", title="Review")
def undo(call: PageCall) -> Response:
    """Take back what was decided last, together; it is in hand again."""
    asked = call.checked(FilterForm)
    settings = call.settings
    with call.transaction() as session:
        last = review_undo.last(session, call.account_id, call.actor, settings.review_undo_s)
        found = review_undo.undo(
            session,
            call.account_id,
            call.actor,
            last,
            within_s=settings.review_undo_s,
            lease_s=settings.review_lease_s,
        )
    if not found:
        return redirect(call, address(asked), "There is nothing to take back.", "note")
    message = "Taken back." if len(found) == 1 else f"{len(found)} decisions taken back."
    return redirect(call, address(asked, **({"at": str(found[0].id)} if asked.view == "one" else {})), message)


def _pair(text: str) -> Chosen | None:
    left, _, right = text.partition(":")
    try:
        version = int(right)
        return (UUID(left), version) if 0 < version < 2**31 else None
    except ValueError:
        return None
