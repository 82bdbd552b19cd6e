"""Commands for shadow runs: start and stop one, list them, report on one, and work on them by hand."""

import json
from typing import Annotated

import typer

app = typer.Typer(
    help="Let a candidate score a sample of live pictures beside the active model; results stay as they are.",
    no_args_is_help=True,
)
PICTURES = 2000
Ref = Annotated[str, typer.Argument(help="The candidate, as `tagmill models list` shows it.", metavar="NAME@VERSION")]


@app.command()
def start(
    ref: Ref,
    share: Annotated[float, typer.Option(help="The part of the pictures, 0 to 1, chosen by their SHA-256.")] = 0.05,
    pictures: Annotated[
        int | None,
        typer.Option(min=1, help=f"End after so many; {PICTURES} unless --days is given.", show_default=False),
    ] = None,
    days: Annotated[
        float | None, typer.Option(min=0.001, max=3650, help="End after so many days.", show_default=False)
    ] = None,
) -> None:
    """Start a shadow run: from now on the candidate scores a sample of what jobs finish with the active model.

    It uses time that the line leaves, and what it says is kept apart: no result, verdict or job is any different.
    """
    from db import shadow
    from worker.cli_keys import owners_database

    if pictures is None and days is None:
        pictures = PICTURES
    with owners_database() as database, database.transaction() as session:
        run = shadow.start(session, ref, shadow.Limits(share, pictures, days))
    typer.echo(f"{run.model} is compared with {run.against} from now on. See: tagmill shadow report {run.model}")


@app.command()
def stop(ref: Ref) -> None:
    """End a model's shadow run. What it has compared stays."""
    from db import shadow
    from worker.cli_keys import owners_database

    with owners_database() as database, database.transaction() as session:
        run = shadow.stop(session, ref)
    typer.echo(f"Stopped after {run.compared} pictures. See: tagmill shadow report {run.model}")


@app.command(name="list")
def list_() -> None:
    """List the newest shadow runs."""
    from db import shadow
    from worker import shadow_page
    from worker.cli_keys import owners_database
    from worker.screen import console

    with owners_database() as database, database.transaction() as session:
        runs = shadow.newest(session)
    if runs:
        console().print(shadow_page.listed(runs))
    else:
        typer.echo("There is none yet. To start one: tagmill shadow start NAME@VERSION", err=True)


@app.command()
def report(
    ref: Ref,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, complete.")] = False,
) -> None:
    """Say where a candidate and the active model differ: the newest shadow run of the candidate."""
    from db import shadow
    from worker import shadow_page, shadow_report
    from worker.cli_keys import owners_place
    from worker.screen import console
    from worker.settings import WorkerSettings

    with owners_place() as where:
        settings = WorkerSettings(
            database_url=where.database_url, blob_root=where.blob_root, model_root=where.model_root
        )
        with where.database() as database:
            document = shadow_report.document(
                database, ref, top_k=settings.tags_top_k, min_score=settings.tags_min_score
            )
            with database.transaction() as session:
                run = shadow.latest(session, ref)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif run is not None:
        console().print(shadow_page.report(run, document))


@app.command()
def work(
    device: Annotated[str, typer.Option(help="cpu, or a GPU that the line does not need.")] = "cpu",
) -> None:
    """Work on shadow runs here until Ctrl-C. Not needed where a worker runs: it starts such a process by itself."""
    import os

    from worker import shadow
    from worker.cli_keys import owners_place

    with owners_place() as where:
        os.environ["TAGMILL_DATABASE_URL"] = where.database_url
        os.environ["TAGMILL_BLOB_ROOT"] = str(where.blob_root)
        os.environ["TAGMILL_MODEL_ROOT"] = str(where.model_root)
        os.environ.update(where.store)
        shadow.main(linger_s=None, device=device)
