"""The review queue for people: take pictures, one by one or a grid of them, and decide. What is decided: `db.review_*`.

Pictures come veiled, whatever their verdict, so that the veil tells none; to see one clear is a request that counts.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal
from urllib.parse import urlencode
from uuid import UUID

from flask import Response
from pydantic import Field

from api.console import pictures
from api.console.pages import Form, Nav, PageCall, Pages
from api.console.rendering import redirect, render
from api.routing import Parameters
from db import people, review_exposure, review_leases, review_undo, review_views
from db.items import ItemView
from db.review_leases import Filter
from db.review_tables import ReviewTask
from db.review_views import Count, TaskView
from db.session import Session

pages = Pages("review", Nav("Review", "/console/review", icon="review", role="reviewer", order=20))
HERE: Final = "/console/review"
GRID: Final = 24
View = Literal["one", "grid"]
_FILTERS: Final = ("policy", "reason", "category", "context")


def _count(call: PageCall, session: Session, found: Sequence[ItemView]) -> None:
    """Whoever sees a picture clear, here or on another page, has seen it: ExposureLimit when it is enough for today."""
    shown = review_exposure.shown(found)
    limit = call.settings.review_exposure_limit
    review_exposure.count(session, call.account_id, call.actor, shown, limit=limit)


pictures.GRANTED.append(_count)


class ReviewQuery(Parameters):
    """How the page looks, which review it shows, and which ones are taken next."""

    view: View = "one"
    at: UUID | None = None
    policy: str | None = Field(default=None, max_length=200)
    reason: str | None = Field(default=None, max_length=200)
    category: str | None = Field(default=None, max_length=200)
    context: str | None = Field(default=None, max_length=64)


class FilterForm(Form):
    """Base of the page's forms: what is taken next."""

    view: View = "one"
    policy: str | None = Field(default=None, max_length=200)
    reason: str | None = Field(default=None, max_length=200)
    category: str | None = Field(default=None, max_length=200)
    context: str | None = Field(default=None, max_length=64)


def chosen(asked: FilterForm | ReviewQuery) -> dict[str, str]:
    """The filters that were set."""
    return {name: value for name in _FILTERS if (value := getattr(asked, name)) is not None}


def address(asked: FilterForm | ReviewQuery, **more: str) -> str:
    """The page again, with the same view and filters."""
    given = ({"view": asked.view} if asked.view != "one" else {}) | chosen(asked) | more
    return f"{HERE}?{urlencode(given)}" if given else HERE


def take(call: PageCall, session: Session, asked: FilterForm) -> list[ReviewTask]:
    """Claim what the view shows at once; a curator gets first what was escalated."""
    return review_leases.claim(
        session,
        call.account_id,
        call.actor,
        count=GRID if asked.view == "grid" else 1,
        which=Filter(**{**dict.fromkeys(_FILTERS), **chosen(asked)}),
        curator=call.may("curator"),
        lease_s=call.settings.review_lease_s,
        gold_share=call.settings.review_gold_share,
    )


def go_on(call: PageCall, session: Session, asked: FilterForm) -> bool:
    """Take the next ones when the hand is empty; whether there is something to look at."""
    return bool(review_leases.held(session, call.account_id, call.actor)) or bool(take(call, session, asked))


@pages.page("GET", HERE, role="reviewer", title="Review", query=ReviewQuery)
def index(call: PageCall, query: ReviewQuery) -> Response:
    """What the reviewer has in hand; with empty hands, what waits."""
    with call.transaction() as session:
        held = review_leases.held(session, call.account_id, call.actor)
        shown = held if query.view == "grid" else [_at(held, query.at)] if held else []
        values: dict[str, Any] = {
            "query": query,
            "chosen": chosen(query),
            "held": held,
            "views": review_views.views(session, call.account_id, shown, near=query.view == "one"),
            "counts": [] if held else review_views.counts(session, call.account_id),
            "undoable": len(review_undo.last(session, call.account_id, call.actor, call.settings.review_undo_s)),
            "names": people.names(session, call.account_id),
            "seen": review_exposure.today(session, call.account_id, call.actor),
            "limit": call.settings.review_exposure_limit,
            "picture": pictures.url,
            "address": lambda **more: address(query, **more),
        }
    if not held:
        return render(call, "review.html", options=_options(values["counts"]), **values)
    if query.view == "grid":
        return render(call, "review_grid.html", codes=_codes(values["views"]), **values)
    (view,) = values["views"]
    place = [task.id for task in held].index(view.id)
    around = {"before": held[place - 1].id, "after": held[(place + 1) % len(held)].id, "place": place + 1}
    return render(call, "review_one.html", view=view, around=around, score="{:.3f}".format, **values)


@pages.page("POST", f"{HERE}/claim", role="reviewer", title="Review")
def claim(call: PageCall) -> Response:
    """Take the next ones."""
    asked = call.checked(FilterForm)
    with call.transaction() as session:
        found = go_on(call, session, asked)
    return redirect(call, address(asked), None if found else "Nothing waits that is for you.", "note")


class MoveForm(FilterForm):
    """One review, in the version in which it was shown."""

    version: int = Field(ge=1, lt=2**31)
    verdict: Literal["approve", "reject"] | None = None
    code: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,64}$")
    own_code: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,64}$")
    text: str | None = Field(default=None, max_length=2000)
    comment: str | None = Field(default=None, max_length=2000)
    near: list[UUID] = Field(default=[], max_length=100)


@pages.page("POST", f"{HERE}/<uuid:review_id>/escalate", role="reviewer", title="Review")
def escalate(call: PageCall, review_id: UUID) -> Response:
    """To the curators, and on to the next one."""
    asked = call.checked(MoveForm)
    with call.transaction() as session:
        review_leases.escalate(session, call.account_id, call.actor, review_id, asked.version, asked.comment)
        go_on(call, session, asked)
    return redirect(call, address(asked), "The curators have it.")


@pages.page("POST", f"{HERE}/<uuid:review_id>/skip", role="reviewer", title="Review")
def skip(call: PageCall, review_id: UUID) -> Response:
    """To somebody else, and on to the next one."""
    asked = call.checked(MoveForm)
    with call.transaction() as session:
        pause_s = call.settings.review_skip_s
        task = review_leases.skip(session, call.account_id, call.actor, review_id, asked.version, pause_s=pause_s)
        if asked.comment:
            review_leases.remark(session, call.account_id, call.actor, task, asked.comment)
        go_on(call, session, asked)
    return redirect(call, address(asked), "Skipped: others get it.")


@pages.page("POST", f"{HERE}/<uuid:review_id>/comment", role="reviewer", title="Review")
def comment(call: PageCall, review_id: UUID) -> Response:
    """Only the remark; the review stays in hand."""
    asked = call.checked(MoveForm)
    with call.transaction() as session:
        task = review_leases.get(session, call.account_id, review_id, call.actor)
        if asked.comment:
            review_leases.remark(session, call.account_id, call.actor, task, asked.comment)
    return redirect(call, address(asked, at=str(review_id)), "Noted." if asked.comment else None)


@pages.page("POST", f"{HERE}/release", role="reviewer", title="Review")
def release(call: PageCall) -> Response:
    """Give everything in hand back: the end of a shift."""
    asked = call.checked(FilterForm)
    with call.transaction() as session:
        held = review_leases.held(session, call.account_id, call.actor)
        for task in held:
            review_leases.release(session, call.account_id, call.actor, task.id, task.version)
    return redirect(call, address(asked), "Given back.")


def _at(held: Sequence[ReviewTask], wanted: UUID | None) -> ReviewTask:
    return next((task for task in held if task.id == wanted), held[0])


def _options(counts: Sequence[Count]) -> dict[str, list[str]]:
    """What there is to filter by, of what waits."""
    kinds = ("policy", "reason", "context")
    return {kind: sorted({str(value) for each in counts if (value := getattr(each, kind))}) for kind in kinds}


def _codes(views: Sequence[TaskView]) -> list[dict[str, Any]]:
    """The reasons that all of these may be rejected for, in the policies' order."""
    found: dict[str, dict[str, Any]] = {}
    for view in views:
        for code in view.codes:
            found.setdefault(code["code"], code)
    return list(found.values())
