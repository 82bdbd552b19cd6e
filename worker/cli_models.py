"""Commands for models: list what is registered, pull one from its sources, choose the active version."""

from typing import Annotated

import typer

app = typer.Typer(help="List, pull and activate models.", no_args_is_help=True)


@app.command(name="list")
def list_() -> None:
    """List the registered models, and those that can be pulled."""
    from rich.console import Console
    from rich.table import Table

    from db import registry
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        models = registry.list_models(session)
    table = Table("model", "task", "state", "labels", "licence", box=None, header_style="bold")
    for model in models:
        state = "[green]active[/]" if model.state == "active" else model.state
        labels, licence = len(model.card.get("labels", ())), str(model.card.get("licence", "–"))
        table.add_row(model.ref, model.task, state, str(labels), licence)
    Console(highlight=False).print(table if models else "No models are registered yet: tagmill models pull NAME")


@app.command()
def activate(
    ref: Annotated[str, typer.Argument(help="name@version, as in the list.", metavar="NAME@VERSION")],
) -> None:
    """Make a version the one that new jobs use. Running jobs keep theirs."""
    from db import registry
    from worker.cli_keys import owners_database

    name, at, version = ref.rpartition("@")
    if not at:
        raise typer.BadParameter("expected NAME@VERSION, as `tagmill models list` shows it", param_hint="REF")
    with owners_database() as database, database.transaction() as session:
        model = registry.activate(session, name, version)
        typer.echo(f"{model.ref} is active for {model.task}.")
