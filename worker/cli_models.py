"""Commands for models: list what is registered, pull one from its sources, choose the active version."""

from typing import Annotated

import typer

app = typer.Typer(help="List, pull and activate models.", no_args_is_help=True)


@app.command(name="list")
def list_() -> None:
    """List the registered models, and those that can be pulled."""
    from rich.table import Table

    from db import registry
    from worker.cli_keys import owners_database
    from worker.model_store import RECIPES
    from worker.screen import console, plain

    with owners_database() as database, database.transaction() as session:
        models = registry.list_models(session)
    table = Table("model", "task", "state", "labels", "licence", box=None, header_style="bold")
    for model in models:
        state = "[green]active[/]" if model.state == "active" else plain(model.state)
        labels, licence = len(model.card.get("labels", ())), plain(model.card.get("licence", "–"))
        table.add_row(plain(model.ref), plain(model.task), state, str(labels), licence)
    for name, recipe in RECIPES.items():
        if name not in {model.name for model in models}:
            table.add_row(f"[dim]{name}[/]", f"[dim]{recipe.task}[/]", "[dim]can be pulled[/]", "", "")
    console().print(table)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="The model's name; without it, both that a new system wants.")] = "",
    source: Annotated[str | None, typer.Option("--from", help="A folder or URL with the published files.")] = None,
    activate: Annotated[bool, typer.Option(help="Make it the one that new jobs use.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Fetch it even if it is installed.")] = False,
) -> None:
    """Get a model from its sources, verify, convert, install and activate it."""
    from db.session import Database
    from worker import model_setup
    from worker.cli_keys import owners_place

    with owners_place() as where:
        models = model_setup.store(where.model_root, source)
        database = Database(where.database_url, pool_size=1)
        try:
            for wanted in [name] if name else model_setup.DEFAULTS:
                pulled = model_setup.install(database, models, wanted, activate=activate, again=again)
                for failed in pulled.tried:
                    typer.echo(f"{failed.source}: {failed.detail} ({failed.code})", err=True)
                state = "active" if activate else "candidate"
                typer.echo(f"{pulled.ref} for {pulled.task}: {state}, from {pulled.source}, in {pulled.folder}")
        finally:
            database.dispose()


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
