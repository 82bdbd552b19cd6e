"""`tagmill datasets suggest`: which pictures to label next, as a table to fill in."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer


def register(datasets: typer.Typer) -> None:
    """Add the command to those of datasets."""
    datasets.command()(suggest)


def suggest(
    model: Annotated[
        str | None, typer.Option(metavar="NAME@VERSION", help="Whose scores; without it, the active model of tags.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many pictures at most.")] = 200,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="With results since this day (UTC); without it, of the last 30 days."),
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="A label group to label; without it, all of the model. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The .csv to write; without it, stdout.")] = None,
    account: Annotated[str, typer.Option(help="Whose pictures.")] = "local",
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="The same seed chooses the same.")] = 0,
) -> None:
    """Suggest pictures to label: half of them unclear to the model, half unlike all others; none twice, none that has a
    label.

    Fill in the column of each label group and give the table to: tagmill labels import FILE.csv --source labelling
    """
    from db import accounts
    from worker import suggesting
    from worker.cli_datasets import opened

    begin = since.replace(tzinfo=UTC) if since else datetime.now(UTC) - timedelta(days=30)
    if out is not None and not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent}", param_hint="--out")
    with opened() as (database, _, _):
        with database.transaction() as session:
            owner = accounts.by_name(session, account).id
        found = suggesting.choose(database, owner, model, count, since=begin, groups=group or (), seed=seed)
    if out is None:
        suggesting.write(found, sys.stdout)
    else:
        suggesting.save(found, out)
    uncertain = sum(row.why == "uncertain" for row in found.rows)
    among = f"a sample of {found.candidates}" if found.cut else str(found.candidates)
    typer.echo(
        f"{len(found.rows)} pictures to label ({uncertain} uncertain, {len(found.rows) - uncertain} diverse) of {among}"
        f" without a label that {found.model} has scored since {begin:%Y-%m-%d}" + (f", in {out}" if out else ""),
        err=True,
    )
