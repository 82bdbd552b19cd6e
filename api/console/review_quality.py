"""How right machine and reviewers are, as a page: intervals, weeks, exposure, and the pictures with known answers."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from flask import Response
from markupsafe import Markup
from pydantic import Field

from api.console.formats import percent
from api.console.pages import Form, PageCall
from api.console.pictures import url
from api.console.rendering import redirect, render
from api.console.review import HERE, ReviewQuery, pages
from api.routing import Parameters
from db import people, review_agreement, review_exposure, review_gold, review_quality
from db.ids import item_id
from db.review_agreement import Reviewer, Reviewing
from db.review_statistics import Estimate

QUALITY: Final = f"{HERE}/quality"
_WIDTH: Final = 200


class QualityQuery(Parameters):
    """Of how many days, and of which policy's verdicts."""

    days: Literal["7", "28", "90", "365"] = "28"
    policy: str | None = Field(default=None, max_length=200)


@pages.page("GET", QUALITY, role="curator", title="Quality", query=QualityQuery)
def quality(call: PageCall, query: QualityQuery) -> Response:
    """The figures of docs/review.md, with their intervals."""
    since = datetime.now(UTC) - timedelta(days=int(query.days))
    with call.transaction() as session:
        automation = review_quality.automation(session, call.account_id, since, policy=query.policy)
        found = review_agreement.reviewing(session, call.account_id, since)
        exposure = review_exposure.by_day(session, call.account_id, since.date())
        gold = review_gold.every(session, call.account_id, 48)
        names = people.names(session, call.account_id)
    return render(
        call,
        "review_quality.html",
        query=query,
        shape=ReviewQuery(),
        automation=automation,
        agreement=found.agreement[0],
        reviewers=[each for each in found.reviewers if each.week is None],
        weeks=_weeks(found, names),
        kappas=_kappas(found),
        kappa_low=min(0.0, *(each.kappa.value or 0.0 for each in found.agreement)),
        exposure=_exposure(exposure, names),
        gold=[(each, item_id(each.job_id, each.seq)) for each in gold],
        names=names,
        interval=interval,
        picture=url,
        day=_day,
        percents=lambda value: percent(value, 0),
        two="{:.1f}".format,
    )


class GoldForm(Form):
    """The right answer to an item's picture."""

    item_id: str = Field(max_length=100)
    verdict: Literal["approve", "reject"]


@pages.page("POST", f"{QUALITY}/gold", role="curator", title="Quality")
def keep(call: PageCall) -> Response:
    """Give the picture to reviewers from now on, unmarked."""
    asked = call.checked(GoldForm)
    with call.transaction() as session:
        review_gold.add(session, call.account_id, call.actor, asked.item_id, asked.verdict)
    return redirect(call, QUALITY, "Kept. Reviewers get it now and then, and cannot tell.")


@pages.page("POST", f"{QUALITY}/gold/<uuid:gold_id>/remove", role="curator", title="Quality")
def remove(call: PageCall, gold_id: UUID) -> Response:
    """Give it to nobody any more."""
    with call.transaction() as session:
        review_gold.remove(session, call.account_id, call.actor, gold_id)
    return redirect(call, QUALITY, "Removed. What was said of it counts on.")


def interval(figure: Estimate) -> Markup:
    """A share and its interval on a line from 0 to 1."""
    if figure.value is None or figure.low is None or figure.high is None:
        return Markup('<span class="quiet">–</span>')
    low, high, value = (max(0.0, min(1.0, each)) * _WIDTH for each in (figure.low, figure.high, figure.value))
    return Markup(
        '<svg class="interval" viewBox="0 0 {0} 12" preserveAspectRatio="none" role="img"'
        ' aria-label="{1:.1%}, between {2:.1%} and {3:.1%}">'
        '<rect class="track" y="4" width="{0}" height="4"/>'
        '<rect class="range" x="{4:.1f}" width="{5:.1f}" height="12"/>'
        '<rect class="value" x="{6:.1f}" width="2" height="12"/></svg>'
    ).format(_WIDTH, figure.value, figure.low, figure.high, low, max(1.0, high - low), min(value, _WIDTH - 2.0))


def _weeks(found: Reviewing, names: dict[str, str]) -> dict[str, list[tuple[float, float | None]]]:
    """By reviewer, the share of right answers to known pictures and to those that were looked at again, by week."""
    series: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
    for each in found.reviewers:
        if each.week is not None:
            series[names.get(each.actor, each.actor)].append((_number(each.week), _right(each)))
    return dict(series)


def _right(reviewer: Reviewer) -> float | None:
    n = reviewer.gold.n + reviewer.final.n
    if not n:
        return None
    return ((reviewer.gold.value or 0.0) * reviewer.gold.n + (reviewer.final.value or 0.0) * reviewer.final.n) / n


def _kappas(found: Reviewing) -> dict[str, list[tuple[float, float | None]]]:
    points = [(_number(each.week), each.kappa.value) for each in found.agreement if each.week is not None]
    return {"kappa": points} if any(value is not None for _, value in points) else {}


def _exposure(seen: list[review_exposure.Seen], names: dict[str, str]) -> list[tuple[str, dict[str, float]]]:
    """Columns of days, oldest first: pictures seen clear by reviewer."""
    days: dict[date, dict[str, float]] = defaultdict(dict)
    for each in seen:
        name = names.get(each.actor, each.actor)
        days[each.day][name] = days[each.day].get(name, 0) + each.pictures
    return [(f"{day:%m-%d}", days[day]) for day in sorted(days)]


def _number(week: date) -> float:
    return float(week.toordinal())


def _day(number: float) -> str:
    return f"{date.fromordinal(round(number)):%m-%d}"
