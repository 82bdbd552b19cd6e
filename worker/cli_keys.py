"""Commands for API keys: create (shown once), list, revoke."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from db.session import Database
    from worker.local import Place

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
MAX_NAME = 200
Account = Annotated[str, typer.Option(help="The account that the key opens.")]


@contextmanager
def owners_database() -> "Iterator[Database]":
    """The database that keys and models are administered in, at the newest schema."""

    with owners_place() as where, where.database() as database:
        yield database


@contextmanager
def owners_place() -> "Iterator[Place]":
    """The system to administer. Our own Postgres is migrated first; a configured one is its operator's."""
    from db import migrate
    from worker.home import Home
    from worker.local import place

    with place(Home.default()) as where:
        if where.origin.startswith("embedded"):
            migrate.upgrade(where.database_url)
        yield where


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, to know it again in the list.")],
    account: Account = "local",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Repeat for several; default: those for jobs, labels, catalog and uploads."),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; without it, never.")] = None,
) -> None:
    """Create a key (and its account, if it is new). It is shown once; only its hash is kept."""
    from db import accounts
    from db.errors import NotFound

    _check_name(name, "NAME")
    _check_name(account, "--account")
    if unknown := sorted(set(scope or []) - set(accounts.SCOPES)):
        raise typer.BadParameter(
            f"unknown: {', '.join(unknown)}; there are {', '.join(accounts.SCOPES)}", param_hint="--scope"
        )
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    with owners_database() as database, database.transaction() as session:
        try:
            owner = accounts.by_name(session, account)
        except NotFound:
            owner = accounts.create(session, account)
        key, secret = accounts.create_key(session, owner.id, name, tuple(scope or accounts.CLIENT_SCOPES), expires)
        about = f"Key {key.key_id} of the account {account}; it is not shown again."
    # The key alone on stdout, so that a script can keep it.
    typer.echo(about, err=True)
    typer.echo(secret)


def _check_name(name: str, hint: str) -> None:
    """Names are kept for people to read: one line, not empty, no longer than the database takes."""
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise typer.BadParameter(f"expected 1 to {MAX_NAME} visible characters", param_hint=hint)


@app.command(name="list")
def list_(account: Account = "local") -> None:
    """List an account's keys, revoked ones too."""
    from rich.table import Table

    from db import accounts
    from worker.screen import console, plain

    with owners_database() as database, database.transaction() as session:
        keys = accounts.list_keys(session, accounts.by_name(session, account).id)
    table = Table("key", "name", "scopes", "created", "last used", "state", box=None, header_style="bold")
    for key in keys:
        expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
        state = "[red]revoked[/]" if key.revoked_at else "[yellow]expired[/]" if expired else "[green]good[/]"
        days = _day(key.created_at), _day(key.last_used_at)
        table.add_row(key.key_id, plain(key.name), " ".join(key.scopes), *days, state)
    console().print(table)


def _day(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M}" if when else "–"


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id (8 characters, see list).")], account: Account = "local"
) -> None:
    """Revoke a key: from now on it opens nothing."""
    from db import accounts

    with owners_database() as database, database.transaction() as session:
        accounts.revoke_key(session, accounts.by_name(session, account).id, key)
    typer.echo(f"Key {key} is revoked.")
