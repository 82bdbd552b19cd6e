"""`tagmill policies diff`: what is different between two policies, stored or in files; changes nothing."""

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import cli_whatif

if TYPE_CHECKING:
    from db.session import Session

Which = Annotated[
    list[str],
    typer.Argument(metavar="NAME A B | A B", help="A name and two versions; or two of NAME@VERSION, NAME and files."),
]
COLOURS = {"+": "green", "-": "red", "@": "cyan"}
ENDINGS = (".yaml", ".yml", ".json")


def register(policies: typer.Typer) -> None:
    """Add the command to those of policies."""
    policies.command()(diff)


def diff(
    which: Which,
    account: Annotated[str | None, typer.Option(help="An account's policies besides the installation's.")] = None,
) -> None:
    """Show what is different between two policies, line by line, comments and order of fields aside. A name without a
    version is its active one. Exit code 0: the same, 1: different, 2: they cannot be compared."""
    from worker.cli import report

    try:
        same = _show(*_named(which), account)
    except Exception as error:  # as `diff` does it: 1 says that they differ
        if isinstance(error, typer.BadParameter) or not report(error):
            raise
        raise typer.Exit(2) from None
    if not same:
        raise typer.Exit(1)


def _named(which: list[str]) -> tuple[str, str]:
    """The two, each NAME@VERSION, NAME or a file."""
    if len(which) == 3 and all(each.isdecimal() for each in which[1:]):
        return f"{which[0]}@{which[1]}", f"{which[0]}@{which[2]}"
    if len(which) != 2:
        raise typer.BadParameter("give NAME A B, or two of NAME@VERSION, NAME and files", param_hint="NAME A B")
    return which[0], which[1]


def _show(old: str, new: str, account: str | None) -> bool:
    """Print the difference; whether there is none."""
    from contextlib import ExitStack

    from db import accounts
    from worker.cli_keys import owners_database
    from worker.screen import visible

    with ExitStack() as stack:
        session, owner = None, None
        if not all(_is_file(each) for each in (old, new)):
            session = stack.enter_context(stack.enter_context(owners_database()).transaction())
            owner = None if account is None else accounts.by_name(session, account).id
        (left, before), (right, after) = (_text(session, owner, each) for each in (old, new))
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), left, right, lineterm="")
    colours = sys.stdout.isatty()
    for line in lines:
        colour = COLOURS.get(line[0]) if colours else None
        typer.echo(typer.style(visible(line), fg=colour) if colour else visible(line))
    return before == after


def _text(session: "Session | None", owner: int | None, which: str) -> tuple[str, str]:
    """Its name for the head, and its canonical text. Raises PolicyError, NotFound, BadParameter."""
    from db import policies, policy_text

    if session is None or _is_file(which):
        path = Path(which)
        if not path.is_file():
            raise typer.BadParameter(f"there is no file {which}", param_hint="FILE")
        return which, policy_text.canonical(policy_text.read(cli_whatif.text_of(path)).document)
    name, at, version = which.rpartition("@")
    if at and not (version.isdecimal() and len(version) < 10):
        raise typer.BadParameter(f"{which!r} is no NAME@VERSION", param_hint="NAME@VERSION")
    row = policies.get(session, owner, name if at else which, int(version) if at else None)
    return row.ref, policy_text.canonical(row.document)


def _is_file(which: str) -> bool:
    """A path, or an ending that files have; `@` and a number make it a stored version."""
    if which.rpartition("@")[2].isdecimal() and "@" in which:
        return False
    return "/" in which or which.endswith(ENDINGS) or Path(which).is_file()
