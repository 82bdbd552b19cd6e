"""Commands for labels by people: say what is in a picture, of one item or of many; all of them over the HTTP API."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Say what is in the pictures; a person's word outranks the model's.", no_args_is_help=True)
SHOWN = 10

New = Annotated[bool, typer.Option("--new", help="Also take labels that the model does not know.")]
Source = Annotated[
    str, typer.Option(help="correction (of what a model said), or labelling (of pictures from scratch).")
]


def register(root: typer.Typer) -> None:
    """Add these commands to the application."""
    root.command(rich_help_panel="Use")(label)
    root.add_typer(app, name="labels", rich_help_panel="Use")


def label(
    item: Annotated[str, typer.Argument(help="The item's id (`item_id` in results).")],
    said: Annotated[
        list[str] | None,
        typer.Argument(metavar="GROUP=LABEL", help="GROUP=a;b for several; GROUP= for none of its attributes."),
    ] = None,
    take_back: Annotated[
        list[str] | None, typer.Option(metavar="GROUP", help="Forget what was said of a group. Repeatable.")
    ] = None,
    comment: Annotated[str | None, typer.Option(help="Why.")] = None,
    new: New = False,
    source: Source = "correction",
) -> None:
    """Say what is in an item's picture, as `tagmill label ITEM category=Dress`; without labels, show what was said.

    The newest word of a group counts and outranks the model's tags of it, whatever a rerun says later.
    """
    from worker.cli_jobs import _client

    groups = _groups(said or [], take_back or [])
    with _client() as client:
        if groups:
            body: dict[str, Any] = {"groups": groups, "new": new, "source": source}
            found = client.label(item, body | ({"comment": comment} if comment else {}))
        else:
            found = client.labels(item)
    _show(found)


@app.command(name="import")
def import_(
    table: Annotated[Path, typer.Argument(help="A .csv with a column item_id and a column for each label group.")],
    group: Annotated[
        list[str] | None,
        typer.Option(help="A column of labels; without it, all that a result does not have. Repeatable."),
    ] = None,
    new: New = False,
    source: Source = "correction",
) -> None:
    """Label many items by a table: an export of results (`tagmill results JOB --out results.csv`) with columns added.

    A cell is a label, several with semicolons, `-` for none of a group's attributes; an empty one says nothing. Wrong
    lines are named and left out, the others are taken; exit code 1 then.
    """
    from worker.cli_jobs import _client
    from worker.label_lists import LabelList
    from worker.screen import console, counted, plain

    rows = LabelList(table, group, new=new, source=source)
    with _client() as client:
        done = client.label_many(rows.ndjson)
    screen = console(stderr=True)
    screen.print(f"[green]{counted(done['labelled'], 'line')} taken[/]")
    for fault in done["errors"][:SHOWN]:
        place = f"line {fault['line']}: " + (f"{fault['field']}: " if fault["field"] else "")
        screen.print(f"  {plain(place + fault['detail'])} [dim]({plain(fault['code'])})[/]", soft_wrap=True)
    if done["failed"]:
        if (more := done["failed"] - SHOWN) > 0:
            screen.print(f"  … and {more} more")
        screen.print(f"[red]{counted(done['failed'], 'wrong line')} left out[/]")
        raise typer.Exit(1)


def _groups(said: list[str], take_back: list[str]) -> dict[str, Any]:
    from worker.label_lists import value

    found: dict[str, Any] = {}
    for text in said:
        group, equals, labels = text.partition("=")
        if not equals or not group:
            raise typer.BadParameter(f"expected GROUP=LABEL, as category=Dress, not {text!r}", param_hint="GROUP=LABEL")
        if group in found:
            raise typer.BadParameter(
                f"{group} is given twice: several labels are {group}=a;b", param_hint="GROUP=LABEL"
            )
        found[group] = value(labels.strip())
    return found | dict.fromkeys(take_back)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    from worker.screen import console, plain

    table = Table("", "group", "labels", "source", "by", "when", box=None, header_style="bold")
    counted = {row["group"] for row in found["labels"]}
    for row in found["history"]:  # newest first
        labels = "taken back" if row["labels"] is None else "; ".join(row["labels"]) or "none of them"
        mark = "[green]counts[/]" if row["group"] in counted else ""
        counted.discard(row["group"])
        when = row["at"][:19].replace("T", " ")
        table.add_row(mark, plain(row["group"]), plain(labels), row["source"], plain(row["by"]), when)
    console().print(table if found["history"] else "Nobody has said anything of this picture.")
