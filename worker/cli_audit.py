"""`tagmill audit`: recompute the hash chain over the audit log, and what it says of decisions and verdicts."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from db.audit_chain import Head, Verifier

app = typer.Typer(help="The audit log, and whether it was changed.", no_args_is_help=True)
COLOURS = {"edited": "red", "removed": "red", "inserted": "red", "unsealed": "yellow"}


@app.callback()
def group() -> None:
    """The audit log, and whether it was changed."""


@app.command()
def verify(
    first: Annotated[
        int, typer.Option("--from", metavar="SEQ", min=1, help="Start at this seal; the one before it is trusted.")
    ] = 1,
    expect_head: Annotated[
        str | None,
        typer.Option(
            metavar="SEQ:HASH", help="A head from earlier, kept elsewhere: the chain must still go through it."
        ),
    ] = None,
    unsealed_after: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Entries that wait longer for their seal are a fault.")
    ] = 60,
    evidence: Annotated[
        bool, typer.Option("--evidence/--no-evidence", help="Also recompute the digests of decisions and verdicts.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Recompute the chain. Names what was edited, removed or inserted, and ends with 1 if anything was.

    Prints the head of the chain: keep it where the owner of this database cannot reach. A log that was cut at its end,
    or made anew, shows against that only.
    """
    from worker.cli_keys import owners_database
    from worker.sealing import recompute

    head = _head(expect_head)
    with owners_database() as database:
        found = recompute(database, first, head, unsealed_after, with_evidence=evidence)
    if as_json:
        typer.echo(json.dumps(_document(found), indent=2))
    else:
        _print(found, first)
    if found.findings:
        raise typer.Exit(1)


def _head(written: str | None) -> "Head | None":
    from db.audit_chain import Head

    try:
        return None if written is None else Head.parse(written)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--expect-head") from None


def _document(found: "Verifier") -> dict[str, object]:
    return {
        "sound": not found.findings,
        "entries": found.entries,
        "evidence": found.evidence,
        "waiting": found.loose.waiting if found.loose is not None else 0,
        "head": str(found.head) if found.head.seq else None,
        "findings": [
            {"what": each.what, "detail": each.detail, "seq": each.seq, "entry": each.entry} for each in found.findings
        ],
    }


def _print(found: "Verifier", first: int) -> None:
    from worker.screen import console, counted, plain

    screen = console()
    for each in found.findings:
        screen.print(f"[{COLOURS[each.what]}]{each.what}[/] {plain(each.detail)}", soft_wrap=True)
    entries = "1 entry" if found.entries == 1 else f"{found.entries} entries"
    looked = f"{entries} from seal {first} on"
    digests = f", {counted(found.evidence, 'digest')} of decisions and verdicts" if found.with_evidence else ""
    verdict = "[red]not whole[/]" if found.findings else "[green]whole[/]"
    screen.print(f"{verdict}: {looked}{digests}", soft_wrap=True)
    if found.loose is not None and found.loose.waiting:
        screen.print(f"[dim]{found.loose.waiting} wait for their seal[/]")
    if found.head.seq and not found.findings:
        screen.print(f"[dim]head, to be kept elsewhere:[/]\n{found.head}", soft_wrap=True)
