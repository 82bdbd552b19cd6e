"""Commands for accounts: their share of the machines, what they have used of their limits, limits of their own."""

from typing import Annotated

import typer

from worker.cli_keys import owners_database

app = typer.Typer(help="Accounts, their shares and their limits.", no_args_is_help=True)
ACTOR = "cli"


@app.command(name="list")
def list_() -> None:
    """List accounts with their shares, their own limits, and the items they submitted today (UTC)."""
    from rich.table import Table

    from db import limits
    from worker.screen import console, plain

    with owners_database() as database, database.transaction() as session:
        found = limits.overview(session)
    table = Table("account", "share", "requests a minute", "items a day", "items today", box=None, header_style="bold")
    for each in found:
        own = (_shown(each.requests_per_minute), _shown(each.items_per_day))
        table.add_row(plain(each.name), str(each.weight), *own, f"{each.items_today:,}")
    console().print(table)


def _shown(own: int | None) -> str:
    return "as all" if own is None else "any" if own == 0 else f"{own:,}"


@app.command(name="set")
def set_(
    name: Annotated[str, typer.Argument(help="The account.")],
    share: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Its share of the machines; others have 1 unless they were set.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=0, max=6_000_000, help="Requests of all its keys; 0: any number.")
    ] = None,
    items_per_day: Annotated[
        int | None, typer.Option(min=0, max=10**12, help="Items it may submit in a day (UTC); 0: any number.")
    ] = None,
    as_all: Annotated[
        bool, typer.Option("--as-all", help="Take its own limits away: those of the settings hold.")
    ] = False,
) -> None:
    """Give an account a share of the machines, or limits of its own. What is not named stays as it is."""
    from db import limits

    own = {"requests_per_minute": requests_per_minute, "items_per_day": items_per_day}
    named = {key: value for key, value in own.items() if value is not None}
    if as_all and named:
        raise typer.BadParameter("it takes limits away; give none with it", param_hint="--as-all")
    if share is not None:
        named["weight"] = share
    changes = {**dict.fromkeys(own), **named} if as_all else named
    if not changes:
        raise typer.BadParameter("say what is to change: --share, --requests-per-minute, --items-per-day, --as-all")
    with owners_database() as database, database.transaction() as session:
        account = limits.change(session, name, changes, actor=ACTOR)
        own_now = _shown(account.requests_per_minute), _shown(account.items_per_day)
    typer.echo(f"{name}: share {account.weight}, requests a minute {own_now[0]}, items a day {own_now[1]}.")
