"""`tagmill erase`: forget pictures for good, see the receipts, and forget again after a backup was restored."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

if TYPE_CHECKING:
    from db.erasure_tables import Erasure
    from db.session import Database
    from worker.erasing import Eraser

app = typer.Typer(help="Forget pictures for good, with a receipt.", no_args_is_help=True)
ABOUT: Final = {
    "item": ("ITEM", "Forget an item, and its picture if no other item of the account shows it."),
    "product": ("PRODUCT", "Forget all items of a product, as `item` does."),
    "subject": ("USER", "Forget all uploads for moderation of a person, by the `user` that they were sent with."),
    "job": ("JOB", "Forget all items of a job, as `item` does."),
    "picture": ("SHA256", "Forget a picture by the SHA-256 of its bytes, with every item that shows it."),
    "account": ("NAME", "Forget all pictures of an account and what was made from them; with --end, the account too."),
}
Account = Annotated[str, typer.Option(help="Whose it is.")]
Json = Annotated[bool, typer.Option("--json", help="The same for programs.")]


@contextmanager
def _house() -> "Iterator[tuple[Database, Eraser]]":
    import threading

    from worker import log
    from worker.cli_keys import owners_place
    from worker.erasing import Eraser

    log.configure()  # what it says besides its answer belongs on stderr
    with owners_place() as where, where.database(pool_size=2) as database:
        yield database, Eraser(database, where.blobs, threading.Event())


def _command(kind: str) -> Callable[..., None]:
    metavar, about = ABOUT[kind]

    def command(
        target: Annotated[str, typer.Argument(metavar=metavar, show_default=False)],
        account: Account = "local",
        everywhere: Annotated[
            bool, typer.Option("--everywhere", help="In every account; only for a picture.", hidden=kind != "picture")
        ] = False,
        end: Annotated[
            bool,
            typer.Option(
                "--end",
                help="Also revoke its keys and remove its people, webhooks and banks.",
                hidden=kind != "account",
            ),
        ] = False,
        reference: Annotated[
            str | None, typer.Option(help="Your reference of the request, kept in the receipt: no names.")
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go; change nothing.")] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask: it cannot be undone.")] = False,
        as_json: Json = False,
    ) -> None:
        if (everywhere and kind != "picture") or (end and kind != "account"):
            raise typer.BadParameter("--everywhere is for a picture, --end for an account")
        owner = target if kind == "account" else account
        _erase(kind, target, None if everywhere else owner, end, reference, dry_run, yes, as_json)

    command.__doc__ = about
    return command


for _kind in ABOUT:
    app.command(name=_kind)(_command(_kind))


def _erase(
    kind: str, target: str, owner: str | None, end: bool, reference: str | None, dry: bool, yes: bool, as_json: bool
) -> None:
    from db import accounts, erasures

    class Undo(Exception):
        """Ends a transaction that was only to be looked at."""

    with _house() as (database, eraser):
        with database.transaction() as session:
            account_id = None if owner is None else accounts.by_name(session, owner).id
        if dry or not yes:
            try:
                with database.transaction() as session:
                    steps = 10 if account_id is not None else 1000
                    counts, more = erasures.preview(session, account_id, kind, target, steps)
                    raise Undo
            except Undo:
                _print_counts(counts, more, as_json=as_json and dry)
            if dry:
                return
            typer.confirm("Erase this? It cannot be undone.", abort=True)
        with database.transaction() as session:
            asked = erasures.ask(
                session, account_id, kind, target, actor="cli", reference=reference, ends_account=end
            ).id
        eraser.work_off(asked)
        with database.transaction() as session:
            _print(erasures.by_id(session, asked), as_json)


@app.command(name="list")
def list_(
    account: Account = "local", every: Annotated[bool, typer.Option("--all", help="Of all accounts.")] = False
) -> None:
    """List erasures, newest first."""
    from rich.table import Table

    from db import accounts, erasures
    from worker.screen import console, plain

    with _house() as (database, _), database.transaction() as session:
        account_id = None if every else accounts.by_name(session, account).id
        found = erasures.page(session, account_id, limit=200, every=every)
    table = Table("erasure", "of", "state", "asked", "by", "items", "pictures", box=None, header_style="bold")
    for each in found:
        sums = (str(each.counts.get(name, 0)) for name in ("items", "pictures"))
        table.add_row(
            str(each.id), each.kind, _state(each), f"{each.created_at:%Y-%m-%d %H:%M}", plain(each.actor), *sums
        )
    console().print(table)


@app.command()
def show(
    erasure: Annotated[UUID, typer.Argument(metavar="ERASURE", help="Its id, see list.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show the receipt of an erasure."""
    from db import erasures

    with _house() as (database, _), database.transaction() as session:
        _print(erasures.by_id(session, erasure), as_json)


@app.command()
def replay(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where the journals are; without it, the blob store's.", exists=True, show_default=False),
    ] = None,
    again: Annotated[
        bool, typer.Option("--all", help="Look again for what every known erasure erased, not only the unknown ones.")
    ] = False,
) -> None:
    """Forget again what was erased, in a database restored from before. Maintenance does so too, within a minute."""
    from db import erasure_journal

    with _house() as (database, eraser):
        taken = eraser.replay(None if folder is None else sorted(folder.glob("*.json")))
        if again:
            with database.transaction() as session:
                erasure_journal.reopen(session)
        ended = eraser.run_once()
    typer.echo(f"{taken} erasures were unknown here; {ended} erasures and blobs were worked off.")


def receipt(erasure: "Erasure") -> dict[str, Any]:
    """A receipt for programs."""
    from db.erasures import shown_target

    times = {
        name: getattr(erasure, name) for name in ("created_at", "started_at", "rows_at", "finished_at", "settled_at")
    }
    journal = erasure.journal_sha256
    return {
        "id": str(erasure.id),
        "account": erasure.account_id,
        "kind": erasure.kind,
        "target": shown_target(erasure),
        "target_sha256": erasure.target_sha256.hex(),
        "reference": erasure.reference,
        "actor": erasure.actor,
        "state": erasure.state,
        "counts": erasure.counts,
        "journal_sha256": None if journal is None else journal.hex(),
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
    }


def _print(erasure: "Erasure", as_json: bool) -> None:
    from rich.table import Table

    from worker.screen import console, plain

    if as_json:
        typer.echo(json.dumps(receipt(erasure), indent=2))
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in receipt(erasure).items():
        if name != "counts" and value is not None:
            grid.add_row(name, plain(str(value)))
    for name, count in sorted(erasure.counts.items()):
        grid.add_row(name, str(count))
    console().print(grid)


def _print_counts(counts: Any, more: bool, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"counts": dict(counts), "at_least": more}, indent=2))
        return
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing"
    typer.echo(f"{'At least ' if more else ''}{told} would be erased.")


def _state(erasure: "Erasure") -> str:
    return "settled" if erasure.settled_at is not None else erasure.state
