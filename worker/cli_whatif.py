"""`tagmill policies try` and `redecide`: what a policy would have decided, and deciding results again."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from db.session import Database, Session
    from db.whatif import Window

Day = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Results from then on (UTC); without it, of --days."),
]
Until = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Before then (UTC); without it, now.")
]
Days = Annotated[float, typer.Option(min=0.01, max=400, help="How many days to look back, without --since.")]
Account = Annotated[str | None, typer.Option(help="Whose results; without it, all accounts'.")]
Context = Annotated[str | None, typer.Option(help="Only results of jobs with this context.")]
Job = Annotated[UUID | None, typer.Option(help="Only results of this job.")]
COLOURS = {"approve": "green", "review": "yellow", "reject": "red"}


def register(policies: typer.Typer) -> None:
    """Add the commands to those of policies."""
    policies.command("try")(try_)
    policies.command()(redecide)


def try_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A policy, YAML or JSON.")],
    days: Days = 7.0,
    since: Day = None,
    until: Until = None,
    account: Account = None,
    context: Context = None,
    job: Job = None,
    decided_by: Annotated[str | None, typer.Option(help="Only results that this policy decided (its name).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything that was counted.")] = False,
) -> None:
    """Replay a policy over stored scores: which verdicts would be others, by which rules, and what people would have
    to look at. Nothing is changed, and no network runs."""
    from db import policy_text, policy_warnings
    from worker import replaying
    from worker.cli_datasets import opened

    decided = policy_text.read(text_of(file)).policy
    with opened() as (database, _, _):
        window = _window(days, since, until, context, job, decided_by)
        owner = _account(database, account)
        with database.transaction() as session:
            warn(policy_warnings.warnings(session, owner, decided))
        found = replaying.replay(database, decided, window, account_id=owner)
    if as_json:
        typer.echo(json.dumps({"policy": decided.ref, "window": window.document(), **found}, indent=2))
        return
    show(decided.ref, window, found)


def redecide(
    name: Annotated[str, typer.Argument(help="A policy: its active version decides.")],
    days: Days = 7.0,
    since: Day = None,
    until: Until = None,
    account: Account = None,
    context: Context = None,
    job: Job = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="Also results that a policy of another name decided.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Decide a window's results again by a policy's active version, newest first. What people decided stays; what was
    there before is kept in the record of decisions. Interrupted, the same command does the rest."""
    from db import policy as engine
    from worker import replaying
    from worker.cli_datasets import opened

    with opened() as (database, _, _):
        window = _window(days, since, until, context, job, None if everything else name)
        owner = _account(database, account)
        with database.transaction() as session:
            decided = engine.validate(_active(session, owner, name))
        if not yes:
            would = replaying.replay(database, decided, window, account_id=owner)
            show(decided.ref, window, would)
            if not would["analyses"]:
                if not everything:
                    typer.echo(f"Only what {name} has decided was looked for; --everything takes the rest.", err=True)
                return
            typer.confirm("Decide these results again?", abort=True)
        found = replaying.replay(database, decided, window, account_id=owner, write="cli")
    typer.echo(f"{found['written']} of {found['analyses']} results were decided again by {decided.ref}")


def warn(warnings: list[str]) -> None:
    """What may not be meant, on stderr: stdout may be JSON."""
    from worker.screen import console, plain

    for words in warnings:
        console(stderr=True).print(f"[yellow]Warning[/]: {plain(words)}", soft_wrap=True)


def text_of(file: Path) -> str:
    """What a policy's file says."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is no text in UTF-8", param_hint="FILE") from None


def _active(session: "Session", owner: int | None, name: str) -> dict[str, Any]:
    from db import policies
    from db.errors import Conflict

    row = policies.get(session, owner, name)
    if row.state != "active":
        raise Conflict(f"{row.ref} is {row.state}: activate it first.")
    return row.document


def show(ref: str, window: "Window", found: dict[str, Any]) -> None:
    """Print a tally as a person reads it."""
    from worker.screen import console, plain

    screen = console()
    chosen = ", ".join(f"{key} {value}" for key, value in window.document().items() if key not in ("since", "until"))
    span = f"{window.since:%Y-%m-%d %H:%M} to {window.until:%Y-%m-%d %H:%M} UTC"
    screen.print(f"[bold]{plain(ref)}[/] over {span}{', ' + plain(chosen) if chosen else ''}")
    if not found["analyses"]:
        screen.print("no results with a verdict in this window")
        return
    share = 100 * found["changed"] / found["analyses"]
    screen.print(
        f"{found['analyses']:,} results in {found['seconds']:g} s: {found['changed']:,} would change ({share:.1f} %)"
    )
    screen.print(_verdicts(found))
    if found["flips"]:
        screen.print(_flips(found))
    people = found["people"]
    if people["decided"]:
        screen.print(
            f"People decided {people['decided']:,} more: the standing verdicts agree with"
            f" {people['before_agrees']:,} of them, these with {people['after_agrees']:,}"
        )


def _verdicts(found: dict[str, Any]) -> "RenderableType":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Verdict")
    for heading in ("Now", "Then", "Difference", "Then, a day"):
        table.add_column(heading, justify="right")
    days = max(1, len(found["days"]))
    for verdict, colour in COLOURS.items():
        before, after = found["before"][verdict], found["after"][verdict]
        table.add_row(
            f"[{colour}]{verdict}[/]", f"{before:,}", f"{after:,}", f"{after - before:+,}", f"{after / days:,.0f}"
        )
    return table


def _flips(found: dict[str, Any]) -> "RenderableType":
    from rich import box
    from rich.table import Table

    from worker.screen import plain

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Change")
    table.add_column("Results", justify="right")
    table.add_column("By the rule")
    table.add_column("To look at", overflow="fold")
    for flip in found["flips"]:
        change = f"[{COLOURS[flip['before']]}]{flip['before']}[/] → [{COLOURS[flip['after']]}]{flip['after']}[/]"
        rules = ", ".join(
            f"{plain(rule['rule'] or rule['reason'] or '–')} {rule['count']:,}" for rule in flip["rules"][:3]
        )
        table.add_row(change, f"{flip['count']:,}", rules, (flip["samples"] or [""])[0])
    return table


def _window(
    days: float, since: datetime | None, until: datetime | None, context: str | None, job: UUID | None, by: str | None
) -> "Window":
    from db.whatif import Window

    end = until.replace(tzinfo=UTC) if until else datetime.now(UTC)
    begin = since.replace(tzinfo=UTC) if since else end - timedelta(days=days)
    return Window(begin, end, context=context, job=job, policy=by)


def _account(database: "Database", name: str | None) -> int | None:
    from db import accounts

    if name is None:
        return None
    with database.transaction() as session:
        return accounts.by_name(session, name).id
