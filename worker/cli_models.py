"""Commands for models: list and show what is registered, pull, import and export, and choose the active version."""

from pathlib import Path
from typing import Annotated

import typer

from worker import cli_model_import, cli_quantise

app = typer.Typer(help="List, pull, activate and roll back models.", no_args_is_help=True)
ACTOR = "cli"
Ref = Annotated[str, typer.Argument(help="name@version, as in the list.", metavar="NAME@VERSION")]


@app.command(name="list")
def list_() -> None:
    """List the registered models, those that come with Tagmill, and those that can be pulled."""
    from rich.table import Table

    from db import registry
    from worker import model_setup
    from worker.cli_keys import owners_database
    from worker.screen import console, plain

    with owners_database() as database, database.transaction() as session:
        models = registry.list_models(session)
    table = Table("model", "task", "state", "labels", "licence", box=None, header_style="bold")
    for model in models:
        state = "[green]active[/]" if model.state == "active" else plain(model.state)
        labels, licence = len(model.card.get("labels", ())), plain(model.card.get("licence", "–"))
        table.add_row(plain(model.ref), plain(model.task), state, str(labels), licence)
    for name, (task, how) in model_setup.offered().items():
        if name not in {model.name for model in models}:
            table.add_row(f"[dim]{name}[/]", f"[dim]{task}[/]", f"[dim]{how}[/]", "", "")
    console().print(table)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="The model's name; without it, both that a new system wants.")] = "",
    source: Annotated[str | None, typer.Option("--from", help="A folder or URL with the published files.")] = None,
    activate: Annotated[bool, typer.Option(help="Make it the one that new jobs use.")] = True,
    again: Annotated[bool, typer.Option("--again", help="Fetch it even if it is installed.")] = False,
) -> None:
    """Install and activate a model that comes with Tagmill, or get it from its sources, verify and convert it."""
    from worker import model_setup
    from worker.cli_keys import owners_place

    with owners_place() as where:
        models = model_setup.store(where.model_root, source)
        with where.database() as database:
            for wanted in [name] if name else model_setup.DEFAULTS:
                pulled = model_setup.install(database, models, wanted, activate=activate, again=again)
                for failed in pulled.tried:
                    typer.echo(f"{failed.source}: {failed.detail} ({failed.code})", err=True)
                state = "active" if activate else "candidate"
                typer.echo(f"{pulled.ref} for {pulled.task}: {state}, from {pulled.source}, in {pulled.folder}")


@app.command()
def activate(
    ref: Ref,
    force: Annotated[
        str | None, typer.Option("--force", metavar="REASON", help="Activate past a closed gate; the reason is kept.")
    ] = None,
) -> None:
    """Make a version the one that new jobs use. Running jobs keep theirs, and no process needs a restart.

    A version that falls behind the active one in their evaluations on the same data is refused, and so is one whose
    files are missing or damaged.
    """
    from worker import activation, promotion_margins
    from worker.cli_keys import owners_place

    if force is not None and not force.strip():
        raise typer.BadParameter("say why", param_hint="--force")
    margins = promotion_margins.configured()
    name, version = parts(ref)
    with owners_place() as where, where.database() as database:
        model, gate = activation.activate(
            database, where.model_root, name, version, forced=force, margins=margins, actor=ACTOR
        )
    typer.echo(f"{model.ref} is active for {model.task}.")
    if gate is not None:
        typer.echo(f"The gate was {gate}.", err=True)


@app.command()
def rollback(
    task: Annotated[str, typer.Argument(help="tags or moderation.")] = "tags",
) -> None:
    """Activate again what the active version replaced. Asks no gate; a second rollback goes one further back."""
    from db import registry
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        left, now = registry.rollback(session, task, actor=ACTOR)
        typer.echo(f"{now.ref} is active for {task} again; {left.ref} is retired.")


@app.command()
def retire(ref: Ref) -> None:
    """Take a candidate out of the running. Its files stay."""
    from db import registry
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        model = registry.retire(session, *parts(ref), actor=ACTOR)
        typer.echo(f"{model.ref} is retired.")


@app.command()
def show(ref: Ref) -> None:
    """Show a version: its card, what it was made from, its evaluations, and what the gate says of it."""
    from rich.console import Console

    from db import datasets, evaluations, registry, shadow
    from worker import model_page, promotion_margins
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        model = registry.by_ref(session, ref)
        current = registry.active(session, model.task)
        page = model_page.render(
            model,
            lineage=registry.lineage(session, model),
            evaluated=[(datasets.by_id(session, e.dataset_id).ref, e) for e in evaluations.of_model(session, model.id)],
            current=current,
            gate=registry.gate(session, model, current, promotion_margins.configured()),
            shadow=shadow.latest(session, ref),
        )
    Console(highlight=False).print(page)


@app.command()
def export(ref: Ref, to: Annotated[Path, typer.Argument(help="The folder to put it in.")] = Path()) -> None:
    """Copy a version to TO/NAME-VERSION: its card and its weights, checked."""
    from db import registry
    from worker import model_bundle
    from worker.cli_keys import owners_place

    with owners_place() as where:
        with where.database() as database, database.transaction() as session:
            model = registry.by_ref(session, ref)
        typer.echo(model_bundle.export(where.model_root, model.name, model.version, model.sha256, to))


@app.command()
def views(
    ref: Ref,
    count: Annotated[int, typer.Argument(min=1, help="Looks at a picture: 2 adds its mirror image, 4 all there are.")],
    sure: Annotated[
        float | None, typer.Option(min=0.5, max=1, help="A best score from which one look is enough (0.9).")
    ] = None,
    version: Annotated[str | None, typer.Option(help="The version to make (VERSION-COUNTviews).")] = None,
) -> None:
    """Make a version of a moderation model that looks again at pictures that it is not sure of.

    Their scores are the mean over the views. Try it with `tagmill shadow`, then activate it.
    """
    from worker import second_look
    from worker.cli_keys import owners_place

    with owners_place() as where, where.database() as database:
        made = second_look.make(database, where.model_root, ref, count, sure=sure, version=version)
    typer.echo(f"{made.ref} for {made.task}: candidate, made from {ref}, in {made.folder}")


app.command(name="import")(cli_model_import.import_)
app.command()(cli_quantise.quantise)


def parts(ref: str) -> tuple[str, str]:
    """The name and the version of name@version; wrong usage without the @."""
    name, at, version = ref.rpartition("@")
    if not at:
        raise typer.BadParameter("expected NAME@VERSION, as `tagmill models list` shows it", param_hint="REF")
    return name, version
