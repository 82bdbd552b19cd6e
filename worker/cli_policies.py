"""`tagmill policies`: check, add, activate, assign; what the operator does with the installation's policies, or with an
account's in its name. Trying a policy over stored results is in `worker.cli_whatif`."""

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import cli_policy_diff, cli_whatif

if TYPE_CHECKING:
    from db.policy import Policy
    from db.policy_text import Written
    from db.session import Session

app = typer.Typer(help="What decides on pictures: check, add, activate and assign policies.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A policy, YAML or JSON.")]
Account = Annotated[str | None, typer.Option(help="An account's policies instead of the installation's.")]
Ref = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A version of a policy, as `list` names it.")]
STATES = {"active": "green", "draft": "yellow", "retired": "dim"}


@app.command()
def check(file: File) -> None:
    """Say whether a file is a policy, and if not, in which lines it is wrong. Needs no database; where one is at hand,
    names that it does not know are told too."""
    found = _read(file)
    classes = ", ".join(found.policy.classes) or "none"
    typer.echo(f"{file} is good: policy {found.policy.name}, {len(found.policy.rules)} rules; classes: {classes}")
    _warn_at_hand(found.policy)


@app.command()
def add(
    file: File,
    account: Account = None,
    activate: Annotated[bool, typer.Option("--activate", help="Let it decide at once, where it is assigned.")] = False,
) -> None:
    """Save a policy as a draft: the next version of its name."""
    from db import policies, policy_warnings
    from worker.cli_keys import owners_database

    new = _read(file)
    with owners_database() as database, database.transaction() as session:
        owner = _owner(session, account)
        row = policies.add(session, owner, new, actor="cli")
        if activate:
            row = policies.activate(session, owner, row.name, row.version, actor="cli")
        warnings = policy_warnings.warnings(session, owner, new.policy)
    typer.echo(f"{row.ref} is {row.state}")
    cli_whatif.warn(warnings)


@app.command()
def activate(ref: Ref, account: Account = None) -> None:
    """Let a version decide on new jobs. The version before it is retired; activate that one again to go back."""
    from db import policies
    from worker.cli_keys import owners_database

    name, version = _parsed(ref)
    with owners_database() as database, database.transaction() as session:
        row = policies.activate(session, _owner(session, account), name, version, actor="cli")
    typer.echo(f"{row.ref} is active")


@app.command()
def retire(ref: Ref, account: Account = None) -> None:
    """Retire a version that is assigned nowhere, or drop a draft. It can still be read, and activated again."""
    from db import policies
    from worker.cli_keys import owners_database

    name, version = _parsed(ref)
    with owners_database() as database, database.transaction() as session:
        row = policies.retire(session, _owner(session, account), name, version, actor="cli")
    typer.echo(f"{row.ref} is retired")


@app.command()
def assign(
    name: Annotated[str | None, typer.Argument(help="The policy; it needs an active version.")] = None,
    account: Annotated[str | None, typer.Option(help="For this account; without it, for all.")] = None,
    context: Annotated[str | None, typer.Option(help='In this context ("": none); without it, in all.')] = None,
    nothing: Annotated[bool, typer.Option("--nothing", help="Take back what is assigned there.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --nothing for all accounts and contexts: do not ask.")
    ] = False,
) -> None:
    """Say where a policy decides. The most specific assignment counts: of account and context, account, context."""
    from db import policy_assignments
    from worker.cli_keys import owners_database

    if (name is None) != nothing:
        raise typer.BadParameter("give a policy's name, or --nothing", param_hint="NAME")
    if context is not None and not re.fullmatch(r"[a-z0-9_.-]{0,64}", context):
        raise typer.BadParameter("expected a name of a-z, 0-9, _ . - (64 at most)", param_hint="--context")
    if nothing and account is None and context is None and not yes:
        _ask_for_nothing()
    with owners_database() as database, database.transaction() as session:
        owner = _owner(session, account)
        row = policy_assignments.assign(session, owner, context, name, actor="cli")
        instead = policy_assignments.deciding_name(session, owner, context)
    where = f"{'all accounts' if account is None else f'account {account}'}, {_context(context)}"
    if name is not None:
        typer.echo(f"{where}: {name} decides")
        return
    taken = "what was assigned is taken back" if row else "nothing was assigned"
    now = f"{instead} decides" if instead else "no policy decides: every new picture will go to people"
    typer.echo(f"{where}: {taken}; {now}")


@app.command(name="list")
def list_(account: Account = None) -> None:
    """List policies with the version that decides, and where they do."""
    from rich.table import Table

    from db import policies, policy_assignments
    from worker.cli_keys import owners_database
    from worker.screen import console, plain

    table = Table("policy", "state", "of", "since", "description", box=None, header_style="bold")
    with owners_database() as database, database.transaction() as session:
        owner = _owner(session, account)
        for row in policies.page(session, owner, limit=1000):
            whose = "installation" if row.account_id is None else plain(account)
            about = " ".join(str(row.document.get("description", "")).split())
            since = _minute(row.activated_at if row.state == "active" else row.created_at)
            state = f"[{STATES[row.state]}]{row.state}[/]"
            table.add_row(plain(row.ref), state, whose, since, plain(about[:60] + "…" if len(about) > 60 else about))
        places = [
            (each, context, name)
            for each, context, name in policy_assignments.everywhere(session)
            if account in (None, each) or each is None
        ]
    screen = console()
    screen.print(table)
    screen.print("\n[bold]Where they decide[/] [dim](the first that fits)[/]")
    for each, context, name in places:
        whose = "all accounts" if each is None else f"account {each}"
        screen.print(f"  {plain(whose)}, {plain(_context(context))}: {plain(name)}")


@app.command()
def show(
    policy: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Without a version, the active one.")],
    account: Account = None,
) -> None:
    """Print a policy's text as it was written: to read, or to edit and add again."""
    from db import policies
    from worker.cli_keys import owners_database

    name, version = _parsed(policy) if "@" in policy else (policy, None)
    with owners_database() as database, database.transaction() as session:
        row = policies.get(session, _owner(session, account), name, version)
        text = policies.source(row)
    typer.echo(f"{row.ref} ({row.state})", err=True)
    typer.echo(text, nl=not text.endswith("\n"))


@app.command()
def history(
    name: Annotated[str, typer.Argument(help="The policy.")],
    account: Account = None,
) -> None:
    """List a policy's versions, and which was active since when, by whom."""
    from rich.table import Table

    from db import policies
    from worker.cli_keys import owners_database
    from worker.screen import console, plain

    table = Table("version", "state", "saved", "by", box=None, header_style="bold")
    acts = []
    with owners_database() as database, database.transaction() as session:
        owner = _owner(session, account)
        for row in policies.versions(session, owner, name):
            state = f"[{STATES[row.state]}]{row.state}[/]"
            table.add_row(plain(row.ref), state, _minute(row.created_at), plain(row.created_by))
        for each in policies.history(session, owner, name):
            what = f"version {each.version} active" if each.version is not None else "none active"
            instead = "" if each.replaced is None else f", after version {each.replaced}"
            acts.append(f"  {_minute(each.created_at)}  {what}{instead}  [dim]{plain(each.actor)}[/]")
    screen = console()
    screen.print(table)
    screen.print("\n[bold]Which was active[/]")
    for act in acts or ["  none was yet"]:
        screen.print(act)


def _ask_for_nothing() -> None:
    """Usage error without a terminal, Abort by a no: whoever leaves out --account rarely means the whole system."""
    import sys

    what = "This takes back what decides for all accounts and contexts: every new picture will go to people"
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{what}. Name --account or --context, or say --yes", param_hint="--nothing")
    typer.confirm(f"{what} (--account and --context name one place). Take it back?", abort=True)


def _warn_at_hand(policy: "Policy") -> None:
    """Tell of names that a configured or running database does not know; none is started for it."""
    import os

    from db import policy_warnings
    from db.errors import DbError
    from worker.home import Home
    from worker.local import place

    home = Home.default()
    if not os.environ.get("TAGMILL_DATABASE_URL") and not home.running():
        return
    with place(home) as where, where.database() as database:
        try:
            with database.transaction() as session:
                cli_whatif.warn(policy_warnings.warnings(session, None, policy))
        except DbError:
            typer.echo(
                "The database cannot be asked: whether its classes, tags and banks exist is not known.", err=True
            )


def _read(file: Path) -> "Written":
    """Raises PolicyError, with every line that is wrong."""
    from db import policy_text

    return policy_text.read(cli_whatif.text_of(file))


def _owner(session: "Session", account: str | None) -> int | None:
    from db import accounts

    return None if account is None else accounts.by_name(session, account).id


def _parsed(ref: str) -> tuple[str, int]:
    name, _, version = ref.rpartition("@")
    if not name or not version.isdecimal() or len(version) > 9:
        raise typer.BadParameter(f"{ref!r} is no NAME@VERSION", param_hint="NAME@VERSION")
    return name, int(version)


def _context(context: str | None) -> str:
    return "all contexts" if context is None else f"context {context}" if context else "no context"


def _minute(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M}" if when else "–"


cli_whatif.register(app)
cli_policy_diff.register(app)
