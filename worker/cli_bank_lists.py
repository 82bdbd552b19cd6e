"""Whole lists of hashes in and out of hash banks: `tagmill banks import` and `export`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker import bank_page

if TYPE_CHECKING:
    from db.bank_entries import NewEntry
    from db.bank_rows import Row
    from db.session import Session

PART = 100_000
ENDINGS = {".csv": "csv", ".txt": "signals", ".json": "threatexchange", ".xml": "ncmec"}

Name = Annotated[str, typer.Argument(metavar="BANK", help="The bank's name.")]
Account = Annotated[str | None, typer.Option(help="An account's banks instead of the installation's.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the banks'."""
    app.command(name="import")(import_)
    app.command()(export)


def bank_owner(session: "Session", account: str | None) -> int | None:
    """The id of the account whose banks are meant; None: the installation's."""
    from db import accounts

    return None if account is None else accounts.by_name(session, account).id


def import_(
    name: Name,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A list of hashes.")],
    account: Account = None,
    form: Annotated[
        str | None, typer.Option("--format", help="csv, signals, threatexchange or ncmec; without it, by the ending.")
    ] = None,
) -> None:
    """Take in a list of hashes: .csv (as exported), .txt (lines "pdq HASH"), .json (ThreatExchange), .xml (NCMEC).

    Hashes that the bank has are passed over. Wrong lines are named and left out; exit code 1 then.
    """
    from db import bank_entries, bank_formats, banks
    from db.bank_entries import Imported
    from worker.cli_keys import owners_database
    from worker.screen import console

    form = form or ENDINGS.get(file.suffix.lower())
    if form not in bank_formats.FORMS:
        raise typer.BadParameter(f"expected one of {', '.join(bank_formats.FORMS)}", param_hint="--format")
    failed: list[Row] = []
    sums = {"added": 0, "known": 0, "removed": 0}
    with owners_database() as database, file.open("rb") as lines:
        with database.transaction() as session:
            owner = bank_owner(session, account)
            bank = banks.by_name(session, owner, name)
        for new, gone, wrong in _parts(bank_formats.read(form, lines)):
            with database.transaction() as session:
                done: Imported = bank_entries.add_many(session, owner, bank.id, new, "cli", gone=gone)
            sums = {key: sums[key] + getattr(done, key) for key in sums}
            failed += wrong
    screen = console(stderr=True)
    screen.print(f"[green]{sums['added']} added[/], {sums['known']} known already, {sums['removed']} removed")
    if failed:
        bank_page.name_wrong(failed, bank_formats.unit(form))
        raise typer.Exit(1)


def export(
    name: Name,
    account: Account = None,
    out: Annotated[Path | None, typer.Option(help="A file; without it, the terminal.")] = None,
    form: Annotated[str, typer.Option("--format", help='csv, or signals: lines "pdq HASH".')] = "csv",
) -> None:
    """Write a bank's entries as a list that `import` takes."""
    import sys

    from db import bank_entries, bank_formats, banks
    from worker.cli_keys import owners_database

    if form not in ("csv", "signals"):
        raise typer.BadParameter("expected csv or signals", param_hint="--format")
    target = sys.stdout if out is None else out.open("w", encoding="utf-8", newline="")
    try:
        with owners_database() as database:
            with database.transaction() as session:
                owner = bank_owner(session, account)
                bank = banks.by_name(session, owner, name)
            after: Any = None
            while True:
                with database.transaction() as session:
                    found = bank_entries.page(session, owner, bank.id, after=after, limit=5000)
                target.writelines(bank_formats.written(found, form, head=after is None))
                if len(found) < 5000:
                    return
                after = found[-1].id
    finally:
        if out is not None:
            target.close()


def _parts(rows: "Iterable[Row]") -> "Iterator[tuple[list[NewEntry], list[str], list[Row]]]":
    """Entries, ids of those that are gone and wrong rows, as many as one transaction takes."""
    new: list[NewEntry] = []
    gone: list[str] = []
    wrong: list[Row] = []
    for row in rows:
        if row.entry is not None:
            new.append(row.entry)
        elif row.gone is not None:
            gone.append(row.gone)
        else:
            wrong.append(row)
        if len(new) + len(gone) == PART:
            yield new, gone, wrong
            new, gone, wrong = [], [], []
    yield new, gone, wrong
