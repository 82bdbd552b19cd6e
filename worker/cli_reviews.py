"""Commands for the review queue: what waits, how right machine and reviewers are, known answers, what was seen."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

if TYPE_CHECKING:
    from db.review_agreement import Reviewing
    from db.review_quality import Automation
    from db.review_statistics import Estimate

app = typer.Typer(help="Look at the review queue and at how right machine and reviewers are.", no_args_is_help=True)
gold = typer.Typer(help="Pictures with a known answer: given to reviewers unmarked.", no_args_is_help=True)
app.add_typer(gold, name="gold")
ACTOR = "cli"
Account = Annotated[str, typer.Option(help="Whose pictures.")]
Days = Annotated[int, typer.Option(min=1, max=3660, help="Of the last so many days.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, complete.")]


@app.command(name="list")
def list_(account: Account = "local") -> None:
    """Say what waits: by level, reason, policy and context."""
    from rich.table import Table

    from db import accounts, review_views
    from worker.cli_keys import owners_database
    from worker.screen import console, plain

    with owners_database() as database, database.transaction() as session:
        counts = review_views.counts(session, accounts.by_name(session, account).id)
    if not counts:
        typer.echo("Nothing waits for people.", err=True)
        return
    table = Table("for", "reason", "policy", "context", box=None, header_style="bold")
    for heading in ("open", "held", "waiting for"):
        table.add_column(heading, justify="right")
    now = datetime.now(UTC)
    for each in counts:
        names = (each.level, plain(each.reason), plain(each.policy or "–"), plain(each.context or "–"))
        table.add_row(*names, str(each.open), str(each.held), _age(now - each.oldest))
    console().print(table)


@app.command()
def quality(
    account: Account = "local",
    days: Days = 28,
    policy: Annotated[str | None, typer.Option(help="Only this policy's verdicts: NAME or NAME@VERSION.")] = None,
    context: Annotated[str | None, typer.Option(help="Only verdicts in this context.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say how right the automation is, by audits, and how right and how much of one mind reviewers are.

    Intervals are of 95 %. What the figures mean and how they are made: docs/review.md.
    """
    import json

    from db import accounts, review_agreement, review_quality
    from db.people import names as names_of
    from worker.cli_keys import owners_database

    since = datetime.now(UTC) - timedelta(days=days)
    with owners_database() as database, database.transaction() as session:
        account_id = accounts.by_name(session, account).id
        automation = review_quality.automation(session, account_id, since, policy=policy, context=context)
        people = review_agreement.reviewing(session, account_id, since)
        names = names_of(session, account_id)
    if as_json:
        typer.echo(json.dumps(_document(automation, people), default=str))
    else:
        _print(automation, people, names, days)


@app.command()
def exposure(account: Account = "local", days: Days = 7) -> None:
    """Say how many pictures each reviewer has seen clear, by day (UTC)."""
    from collections import defaultdict

    from rich.table import Table

    from db import accounts, review_exposure
    from db.people import names as names_of
    from worker.cli_keys import owners_database
    from worker.screen import console, plain

    since = datetime.now(UTC).date() - timedelta(days=days - 1)
    with owners_database() as database, database.transaction() as session:
        account_id = accounts.by_name(session, account).id
        found, names = review_exposure.by_day(session, account_id, since), names_of(session, account_id)
    by_reviewer: dict[tuple[Any, str], list[review_exposure.Seen]] = defaultdict(list)
    for each in found:
        by_reviewer[each.day, each.actor].append(each)
    if not found:
        typer.echo("Nobody has seen a picture clear.", err=True)
        return
    table = Table("day", "reviewer", box=None, header_style="bold")
    table.add_column("pictures", justify="right")
    table.add_column("taken for")
    for (day, actor), rows in by_reviewer.items():
        classes: dict[str, int] = defaultdict(int)
        for each in rows:
            classes[each.class_] += each.pictures
        most = sorted(classes.items(), key=lambda pair: (-pair[1], pair[0]))
        total = str(sum(each.pictures for each in rows))
        table.add_row(
            f"{day}", plain(names.get(actor, actor)), total, plain(", ".join(f"{name} {n}" for name, n in most))
        )
    console().print(table)


@gold.command()
def add(
    item: Annotated[str, typer.Argument(help="The item's id (`item_id` in results).")],
    verdict: Annotated[str, typer.Argument(help="The right answer: approve or reject.")],
    account: Account = "local",
) -> None:
    """Keep the right answer to an item's picture."""
    from db import accounts, review_gold
    from worker.cli_keys import owners_database

    if verdict not in ("approve", "reject"):
        raise typer.BadParameter("approve or reject", param_hint="VERDICT")
    with owners_database() as database, database.transaction() as session:
        made = review_gold.add(session, accounts.by_name(session, account).id, ACTOR, item, verdict)
    typer.echo(f"Known answer {made.id}: {made.verdict}.")


@gold.command(name="list")
def list_gold(account: Account = "local") -> None:
    """List the known answers, newest first."""
    from rich.table import Table

    from db import accounts, review_gold
    from db.ids import item_id
    from worker.cli_keys import owners_database
    from worker.screen import console, plain

    with owners_database() as database, database.transaction() as session:
        found = review_gold.every(session, accounts.by_name(session, account).id)
    table = Table("id, and its item", "context", "answer", "by", box=None, header_style="bold")
    for each in found:
        names = f"{each.id}\n{item_id(each.job_id, each.seq)}"
        table.add_row(names, plain(each.context or "–"), each.verdict, plain(each.added_by))
    console().print(table if found else "There is none yet. To keep one: tagmill reviews gold add ITEM approve")


@gold.command()
def remove(
    known: Annotated[UUID, typer.Argument(metavar="ID", help="As `tagmill reviews gold add` has shown it.")],
    account: Account = "local",
) -> None:
    """Give a picture to nobody any more; what was said of it counts on."""
    from db import accounts, review_gold
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        review_gold.remove(session, accounts.by_name(session, account).id, ACTOR, known)
    typer.echo("Removed.")


def _print(automation: "Automation", people: "Reviewing", names: dict[str, str], days: int) -> None:
    from rich.table import Table

    from worker.screen import console, plain

    screen = console()
    screen.print(f"[bold]The machine[/], by audits of the last {days} days")
    figures = Table(box=None, show_header=False)
    figures.add_row("rejections that people confirm (precision)", _share(automation.precision))
    figures.add_row("approvals that people would reject", _share(automation.missed))
    figures.add_row("caught of what people would reject (recall)", _share(automation.recall))
    screen.print(figures)
    strata = Table("verdict", box=None, header_style="bold")
    for heading in ("pictures", "drawn", "answered", "people reject"):
        strata.add_column(heading, justify="right")
    for each in automation.strata:
        about = "" if each.verdict == "review" else "≈ "
        pictures = f"{about}{each.pictures:.0f}" if each.drawn or not about else "unknown: none drawn"
        numbers = (pictures, str(each.drawn), str(each.answered), _share(each.rejected))
        strata.add_row(each.verdict, *numbers)
    screen.print(strata)
    whole = people.agreement[0]
    kappa = "–" if whole.kappa.value is None else _number(whole.kappa)
    screen.print(f"\n[bold]Reviewers[/]: {whole.pairs} second opinions, {whole.agreed} the same; kappa {kappa}")
    table = Table("reviewer", box=None, header_style="bold")
    for heading in ("answers", "known right", "right in the end", "rejections right"):
        table.add_column(heading, justify="right")
    for reviewer in people.reviewers:
        if reviewer.week is None:
            shares = (_short(reviewer.gold), _short(reviewer.final), _short(reviewer.precision))
            table.add_row(plain(names.get(reviewer.actor, reviewer.actor)), str(reviewer.answers), *shares)
    if people.reviewers:
        screen.print(table)


def _document(automation: "Automation", people: "Reviewing") -> dict[str, Any]:
    from dataclasses import asdict

    return {"automation": asdict(automation), **asdict(people)}


def _share(figure: "Estimate") -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "–"
    return f"{figure.value:.1%} ({figure.low:.1%} … {figure.high:.1%})"


def _short(figure: "Estimate") -> str:
    return "–" if figure.value is None else f"{figure.value:.0%} of {figure.n}"


def _number(figure: "Estimate") -> str:
    return f"{figure.value:.2f} ({figure.low:.2f} … {figure.high:.2f})"


def _age(waited: timedelta) -> str:
    minutes = max(0, int(waited.total_seconds() // 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
