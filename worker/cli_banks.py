"""`tagmill banks`: the operator's hash banks, which hold for every account, or an account's in its name.

Straight on the database; what it means for the pictures there are is worked off by maintenance. Whole lists of hashes
are in `worker.cli_bank_lists`.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from worker import bank_page, cli_bank_lists

if TYPE_CHECKING:
    from db.bank_search import Match
    from db.bank_tables import Bank, Entry
    from db.session import Session

app = typer.Typer(help="Ban and allow pictures by their PDQ hashes.", no_args_is_help=True)
SHOWN = 20

Name = Annotated[str, typer.Argument(metavar="BANK", help="The bank's name.")]
Which = Annotated[str, typer.Argument(metavar="ENTRY", help="The entry's id, or its hash.")]
Account = Annotated[str | None, typer.Option(help="An account's banks instead of the installation's.")]


@app.command(name="list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="[BANK]", help="Without it: the banks.")] = None,
    account: Account = None,
    state: Annotated[str | None, typer.Option(help="Only entries in this state, as quarantined or wide.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most entries.")] = 50,
) -> None:
    """List the banks, or a bank's entries, newest first."""
    from rich.table import Table

    from db import bank_entries, banks
    from worker.cli_bank_lists import bank_owner
    from worker.cli_keys import owners_database
    from worker.screen import console, plain

    if state is not None and state not in bank_entries.STATES:
        raise typer.BadParameter(f"expected one of {', '.join(bank_entries.STATES)}", param_hint="--state")
    with owners_database() as database, database.transaction() as session:
        owner = bank_owner(session, account)
        if name is None:
            found = banks.listed(session, owner)
            table = Table("bank", "kind", "distance", "quality", "entries", "", box=None, header_style="bold")
            for each in found:
                sums = ", ".join(f"{n} [{bank_page.STATES[s]}]{s}[/]" for s, n in sorted(each.states.items())) or "none"
                about = "" if each.bank.enabled else "[dim]off[/]"
                about += " (the installation's)" if owner is not None and each.bank.account_id is None else ""
                row = plain(each.bank.name), each.bank.kind, str(each.bank.distance), str(each.bank.quality)
                table.add_row(*row, sums, about)
            console().print(table if found else "There is no bank: tagmill banks create NAME.")
            return
        bank = banks.by_name(session, owner, name)
        entries = bank_entries.page(session, owner, bank.id, state=state, limit=limit)
    for entry in entries:
        bank_page.show(entry)
    if not entries:
        console().print("No entry.")


@app.command()
def create(
    name: Name,
    account: Account = None,
    kind: Annotated[str, typer.Option(help="block or allow.")] = "block",
    distance: Annotated[int, typer.Option(min=0, max=47, help="Most differing bits of a hit, of 256.")] = 31,
    quality: Annotated[int, typer.Option(min=0, max=100, help="Least PDQ quality of a picture to match.")] = 50,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> None:
    """Make a bank."""
    import re

    from db import banks
    from worker.cli_bank_lists import bank_owner
    from worker.cli_keys import owners_database

    if kind not in banks.KINDS:
        raise typer.BadParameter("expected block or allow", param_hint="--kind")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", name):
        raise typer.BadParameter("expected a name of a-z, 0-9, _ . - (64 at most)", param_hint="BANK")
    with owners_database() as database, database.transaction() as session:
        owner = bank_owner(session, account)
        more = {"description": description, "distance": distance, "quality": quality}
        banks.create(session, owner, name, kind, actor="cli", **more)  # type: ignore[arg-type]
    typer.echo(f"The {kind} bank {name} is made. Add to it: tagmill banks add {name} HASH")


@app.command()
def add(
    name: Name,
    pdq: Annotated[str | None, typer.Argument(metavar="[HASH]", help="A PDQ hash, 64 hexadecimal digits.")] = None,
    item: Annotated[str | None, typer.Option(help="An item instead: its picture is banned (or allowed).")] = None,
    account: Account = None,
    reason: Annotated[str | None, typer.Option(help="Shown with each verdict.")] = None,
    source: Annotated[str | None, typer.Option(help="Where it comes from.")] = None,
    comment: Annotated[str | None, typer.Option(help="For those who keep the bank.")] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of pictures that it is rolled out to.")] = 1.0,
    expires: Annotated[datetime | None, typer.Option(help="When it ends (UTC).")] = None,
) -> None:
    """Ban (or allow) a picture by its hash or by an item, and list the pictures that it matches."""
    from dataclasses import replace
    from datetime import UTC

    from db import bank_entries, banks
    from db.bank_entries import HASH, NewEntry
    from worker.cli_bank_lists import bank_owner
    from worker.cli_keys import owners_database

    if (pdq is None) == (item is None):
        raise typer.BadParameter("give a hash or --item", param_hint="HASH")
    if pdq is not None and not HASH.fullmatch(pdq):
        raise typer.BadParameter("expected 64 hexadecimal digits", param_hint="HASH")
    end = None if expires is None else expires.replace(tzinfo=UTC)
    new = NewEntry((pdq or "").lower(), reason, source, None, comment, share, True, end)
    with owners_database() as database:
        with database.transaction() as session:
            owner = bank_owner(session, account)
            bank = banks.by_name(session, owner, name)
            if item is not None:
                picture = bank_entries.of_item(session, owner, bank.id, item)
                new = replace(new, pdq=picture.pdq, sha256=picture.sha256)
            entry, _ = bank_entries.add(session, owner, bank.id, new, "cli")
        with database.transaction() as session:
            bank_page.show(entry)
            bank_page.show_matches(*_matches(session, owner, bank, entry))


@app.command()
def remove(
    name: Name,
    entry: Annotated[str | None, typer.Argument(metavar="[ENTRY]", help="Without it: the whole bank.")] = None,
    account: Account = None,
) -> None:
    """Remove an entry, or a bank with all its entries. What they had decided is decided again without them."""
    from db import bank_entries, banks
    from worker.cli_bank_lists import bank_owner
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        owner = bank_owner(session, account)
        bank = banks.by_name(session, owner, name)
        if entry is None:
            banks.remove(session, owner, bank.id, "cli")
        else:
            bank_entries.remove(session, owner, bank.id, _entry(session, owner, bank, entry).id, "cli")
    typer.echo("Removed. What it had decided is decided again within seconds, while maintenance runs.")


@app.command()
def switch(
    name: Name,
    entry: Annotated[str | None, typer.Argument(metavar="[ENTRY]", help="Without it: the whole bank.")] = None,
    on: Annotated[bool, typer.Option("--on/--off", help="Whether it counts.")] = True,
    account: Account = None,
) -> None:
    """Switch an entry or a bank on or off."""
    from db import bank_entries, banks
    from worker.cli_bank_lists import bank_owner
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        owner = bank_owner(session, account)
        bank = banks.by_name(session, owner, name)
        if entry is None:
            banks.change(session, owner, bank.id, "cli", enabled=on)
        else:
            found = _entry(session, owner, bank, entry)
            bank_entries.change(session, owner, bank.id, found.id, "cli", enabled=on)
    typer.echo(f"It is {'on' if on else 'off'}.")


@app.command()
def matches(name: Name, entry: Which, account: Account = None) -> None:
    """List the pictures that an entry matches now, newest first."""
    from db import banks
    from worker.cli_bank_lists import bank_owner
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        owner = bank_owner(session, account)
        bank = banks.by_name(session, owner, name)
        found = _matches(session, owner, bank, _entry(session, owner, bank, entry))
    bank_page.show_matches(*found)


@app.command()
def release(name: Name, entry: Which, account: Account = None) -> None:
    """Let an entry out of its quarantine: it counts again, also for what came meanwhile. Or say of a wide one that it
    is meant to hit so many."""
    from db import bank_entries, banks
    from worker.cli_bank_lists import bank_owner
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        owner = bank_owner(session, account)
        bank = banks.by_name(session, owner, name)
        bank_entries.release(session, owner, bank.id, _entry(session, owner, bank, entry).id, "cli")
    typer.echo("Released.")


def _entry(session: "Session", owner: int | None, bank: "Bank", which: str) -> "Entry":
    from uuid import UUID

    from db import bank_entries

    try:
        return bank_entries.read(session, owner, bank.id, UUID(which))
    except ValueError:
        return bank_entries.by_hash(session, owner, bank.id, which)


def _matches(session: "Session", owner: int | None, bank: "Bank", entry: "Entry") -> "tuple[int, list[Match]]":
    from db import bank_search

    return bank_search.matches(session, owner, entry.hash, bank.distance, bank.quality, SHOWN)


cli_bank_lists.register(app)
