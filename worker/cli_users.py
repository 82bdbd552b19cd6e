"""Commands for the people of the console: create, list, roles, passwords, one-time links, sessions."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli_keys import owners_place

if TYPE_CHECKING:
    from db.people import Person
    from db.session import Session

app = typer.Typer(help="The people who may sign in to the console.", no_args_is_help=True)
ACTOR = "cli"
Name = Annotated[str, typer.Argument(help="The person's name or e-mail address.")]


@contextmanager
def _transaction() -> "Iterator[Session]":

    with owners_place() as where, where.database() as database, database.transaction() as session:
        yield session


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What they sign in with: a–z, 0–9, dot, dash, underscore.")],
    account: Annotated[str, typer.Option(help="The account whose data they see; made if it is new.")] = "local",
    role: Annotated[str, typer.Option(help="viewer, reviewer, curator or admin.")] = "viewer",
    email: Annotated[str | None, typer.Option(help="They can sign in with it too.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Open models and the system to them too.")] = False,
    password: Annotated[
        bool, typer.Option("--password", help="Ask for a password now; without it, a link lets them set one.")
    ] = False,
) -> None:
    """Create somebody, and print a link that signs them in once, within ten minutes."""
    from db import accounts, passwords, people, sign_in
    from db.errors import NotFound

    hashed = passwords.hashed(_asked(), name=name) if password else None
    with _transaction() as session:
        try:
            owner = accounts.by_name(session, account)
        except NotFound:
            owner = accounts.create(session, account)
        person = people.create(session, owner.id, name, role=role, email=email, password_hash=hashed, actor=ACTOR)
        if operator:
            people.set_operator(session, person, True, actor=ACTOR)
        token = None if password else sign_in.issue_link(session, person, actor=ACTOR)
    typer.echo(f"{person.name} is {role} of the account {account}.", err=True)
    if token is not None:
        _print_link(token)


def _asked() -> str:
    """A password: typed twice, or a line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    typed: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return typed


def _print_link(token: str) -> None:
    """The link alone on stdout, so that a script can send it."""
    import os

    from worker.home import Home
    from worker.local_person import address

    running = Home.default().running()
    url = os.environ.get("TAGMILL_PUBLIC_URL") or os.environ.get("TAGMILL_URL") or (running.url if running else "")
    typer.echo("The link works once, within ten minutes.", err=True)
    typer.echo(address(url or "http://127.0.0.1:8080", token))


@app.command(name="list")
def list_(account: Annotated[str | None, typer.Option(help="Only the people of this account.")] = None) -> None:
    """List people, disabled ones too."""
    from rich.table import Table

    from db import accounts, people
    from worker.screen import console, plain

    with _transaction() as session:
        owner = accounts.by_name(session, account).id if account is not None else None
        found = people.everybody(session, owner)
    table = Table("name", "account", "role", "e-mail", "signed in", "state", box=None, header_style="bold")
    for each in found:
        role = f"{each.role}, operator" if each.operator else each.role
        seen = f"{each.last_sign_in_at:%Y-%m-%d %H:%M}" if each.last_sign_in_at else "never"
        table.add_row(each.name, plain(each.account_name), role, plain(each.email or "–"), seen, _state(each))
    console().print(table)


def _state(person: "Person") -> str:
    if person.disabled_at is not None:
        return "[red]disabled[/]"
    return "[green]good[/]" if person.has_password else "[yellow]no password[/]"


@app.command()
def role(
    name: Name,
    role: Annotated[str, typer.Argument(help="viewer, reviewer, curator or admin.")],
    operator: Annotated[
        bool | None, typer.Option("--operator/--no-operator", help="Also open, or close, models and the system.")
    ] = None,
) -> None:
    """Give somebody another role. It counts from their next request on."""
    from db import people

    with _transaction() as session:
        person = people.by_name(session, name)
        people.set_role(session, person, role, actor=ACTOR)
        if operator is not None:
            people.set_operator(session, person, operator, actor=ACTOR)
        also = ", operator" if person.operator else ""
    typer.echo(f"{person.name} is {role}{also} now.")


@app.command()
def password(name: Name) -> None:
    """Set somebody's password: it is asked for, or read from standard input. All their sessions end."""
    from db import passwords, people, sessions
    from worker.screen import counted

    hashed = passwords.hashed(_asked(), name=name)
    with _transaction() as session:
        person = people.by_name(session, name)
        people.set_password(session, person, hashed, actor=ACTOR)
        ended = sessions.revoke_all(session, person, actor=ACTOR)
    typer.echo(f"{person.name} has a new password; {counted(ended, 'session')} ended.")


@app.command()
def link(name: Name) -> None:
    """Print a link that signs somebody in once, within ten minutes."""
    from db import people, sign_in
    from db.errors import Conflict

    with _transaction() as session:
        person = people.by_name(session, name)
        if person.disabled_at is not None:
            raise Conflict(f"{person.name} is disabled; `tagmill users enable {person.name}` first.")
        token = sign_in.issue_link(session, person, actor=ACTOR)
    _print_link(token)


@app.command()
def disable(name: Name) -> None:
    """Let somebody in no more: sessions and links end at once. What they did keeps their name."""
    from db import people, sessions
    from worker.screen import counted

    with _transaction() as session:
        person = people.by_name(session, name)
        people.set_disabled(session, person, True, actor=ACTOR)
        ended = sessions.revoke_all(session, person, actor=ACTOR)
    typer.echo(f"{person.name} is disabled; {counted(ended, 'session')} ended.")


@app.command()
def enable(name: Name) -> None:
    """Let somebody in again."""
    from db import people

    with _transaction() as session:
        person = people.by_name(session, name)
        people.set_disabled(session, person, False, actor=ACTOR)
    typer.echo(f"{person.name} may sign in again.")


@app.command()
def sessions(name: Name, end: Annotated[bool, typer.Option("--end", help="End them all.")] = False) -> None:
    """Show where somebody is signed in."""
    from rich.table import Table

    from db import people
    from db import sessions as open_sessions
    from worker.screen import console, counted, plain

    with _transaction() as session:
        person = people.by_name(session, name)
        if end:
            ended = open_sessions.revoke_all(session, person, actor=ACTOR)
            typer.echo(f"{counted(ended, 'session')} of {person.name} ended.")
            return
        # The API's limit of unused hours is its own setting: here is what would still be good without it.
        found = open_sessions.of_person(session, person, idle_hours=720)
    if not found:
        typer.echo(f"{person.name} is signed in nowhere.")
        return
    table = Table("began", "last seen", "by", "from", "browser", box=None, header_style="bold")
    for each in found:
        table.add_row(
            f"{each.created_at:%Y-%m-%d %H:%M}", f"{each.last_seen_at:%Y-%m-%d %H:%M}", each.means,
            plain(each.address), plain(each.agent[:60]),
        )  # fmt: skip
    console().print(table)
