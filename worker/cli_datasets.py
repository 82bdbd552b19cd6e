"""Commands for datasets: import labelled pictures, fetch them, list and show what is registered."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from worker import dataset_options
from worker.cli_collect import collect
from worker.dataset_options import Attributes, By, Ignore, Labels, Name, Seed, Shares, SplitColumn, Version
from worker.dataset_register import opened as opened  # also for the other commands of learning
from worker.dataset_register import register, register_stored

if TYPE_CHECKING:
    from db.blob_store import Blobs
    from db.session import Database
    from ml.importers import Imported
    from worker.stored_pictures import Gathered

app = typer.Typer(help="Import and look at labelled pictures.", no_args_is_help=True)

Images = Annotated[Path | None, typer.Option(help="Where a table's pictures are; without it, beside it.")]
ImageColumn = Annotated[str, typer.Option(help="The column with the pictures' paths.")]
FromJob = Annotated[
    UUID | None, typer.Option(metavar="JOB", help="The pictures of a job: people's labels, else sure tags.")
]
FromReviews = Annotated[
    bool, typer.Option("--from-reviews", help="Every picture that people have labelled or decided on.")
]
Since = Annotated[datetime | None, typer.Option(help="With --from-reviews: only what was said since then (UTC).")]
MinScore = Annotated[float, typer.Option(min=0, max=1, help="With --from-job: the least score of a tag to believe.")]
Verdict = Annotated[bool, typer.Option("--verdict", help="Make approve and reject a label group too.")]
Account = Annotated[str, typer.Option(help="Whose job or labels.")]


@app.command(name="import")
def import_(
    source: Annotated[
        Path | None, typer.Argument(help="A folder with a folder per class, a .csv, or a manifest (.json).")
    ] = None,
    *,
    name: Name,
    version: Version = "1",
    from_job: FromJob = None,
    from_reviews: FromReviews = False,
    min_score: MinScore = 0.9,
    since: Since = None,
    verdict: Verdict = False,
    images: Images = None,
    label: Labels = None,
    attribute: Attributes = None,
    ignore: Ignore = None,
    image_column: ImageColumn = "image",
    split_column: SplitColumn = "split",
    by: By = None,
    shares: Shares = None,
    seed: Seed = 0,
    account: Account = "local",
) -> None:
    """Register labelled pictures as a version of a dataset: of a folder or table, or of the system itself.

    Pictures of a folder stay where they are, known by their hashes; those of the system stay in its blob store.

    Says what it finds: counts, unreadable pictures, exact and near duplicates, and what leaks between the splits.
    """
    if (source is not None) + (from_job is not None) + from_reviews != 1:
        raise typer.BadParameter("give one of them: SOURCE, --from-job or --from-reviews", param_hint="SOURCE")
    columns = dataset_options.columns(label, attribute, ignore)
    if source is not None and not source.exists():
        raise typer.BadParameter(f"{source}: no such file or folder", param_hint="SOURCE")
    if source is not None:
        root = images or (source if source.is_dir() else source.parent)
        of_table = {"image": image_column, "split": split_column or None, "group_column": by}
        imported = _imported(source, root, columns, name, version, of_table)
        with opened() as (database, blobs, _):
            register(database, blobs, imported, str(root.resolve()), {}, by, shares, seed)
        return
    if columns or images:
        raise typer.BadParameter("labels of the system's own pictures are not in columns", param_hint="--label")
    with opened() as (database, blobs, _):
        what = {"name": name, "version": version, "by": by, "verdict": verdict}
        gathered, origin = _own(database, blobs, account, from_job, min_score, since, what)
        register_stored(database, blobs, gathered, origin, by, shares, seed)


app.command()(collect)


@app.command(name="list")
def list_() -> None:
    """List the registered datasets."""
    from rich.table import Table

    from db import datasets
    from worker.screen import console

    with opened() as (database, _, _), database.transaction() as session:
        found = datasets.every(session)
    table = Table("dataset", "pictures", "groups", "leaks", "created", box=None, header_style="bold")
    for dataset in found:
        groups = ", ".join(f"{name} ({len(g['labels'])})" for name, g in dataset.summary.get("groups", {}).items())
        leaks = str(dataset.summary.get("leaks", "?"))
        table.add_row(dataset.ref, str(dataset.entries), groups, leaks, f"{dataset.created_at:%Y-%m-%d %H:%M}")
    console().print(table)


@app.command()
def show(ref: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Without a version, the newest.")]) -> None:
    """Show a dataset: its hash, where its pictures are, and how many each label has in each split."""
    from db import datasets
    from worker import dataset_screen, manifests
    from worker.screen import console, plain

    with opened() as (database, _, _), database.transaction() as session:
        dataset = datasets.by_ref(session, ref)
    screen = console()
    stored = dataset.images_root == manifests.IN_STORE
    where = "in the blob store" if stored else f"below {dataset.images_root}"
    screen.print(f"[bold]{dataset.ref}[/]  {dataset.entries} pictures {plain(where)}", soft_wrap=True)
    if origin := dataset.summary.get("origin"):
        screen.print(f"from {plain(origin)}", soft_wrap=True)
    screen.print(f"SHA-256 {dataset.sha256}", soft_wrap=True)
    screen.print(dataset_screen.counts(dataset.summary.get("counts", {})))


def _own(
    database: "Database",
    blobs: "Blobs",
    account: str,
    from_job: UUID | None,
    min_score: float,
    since: datetime | None,
    what: dict[str, Any],
) -> "tuple[Gathered, dict[str, str]]":
    """The dataset of a job or of people's labels, and in words where it is from."""
    from db import accounts
    from worker import stored_pictures

    with database.transaction() as session:
        account_id = accounts.by_name(session, account).id
    if from_job is not None:
        gathered = stored_pictures.from_job(database, blobs, account_id, from_job, min_score=min_score, **what)
        return gathered, {"origin": f"job {from_job}: people's labels, else tags from a score of {min_score:g}"}
    when = since.replace(tzinfo=since.tzinfo or UTC) if since else None
    gathered = stored_pictures.from_reviews(database, blobs, account_id, since=when, **what)
    return gathered, {"origin": "people's labels" + (f" since {when:%Y-%m-%d %H:%M}" if when else "")}


def _imported(
    source: Path, root: Path, columns: dict[str, Any], name: str, version: str, of_table: dict[str, Any]
) -> "Imported":
    """The pictures of a folder, a table or a manifest, looked at one by one (those of a manifest when it is used)."""
    from dataclasses import replace

    from ml import importers, manifest

    if source.is_dir():
        return importers.from_folders(source, name=name, version=version)
    if source.suffix.lower() == ".json":
        loaded = replace(manifest.Manifest.load(source), name=name, version=version)
        return importers.Imported(loaded, importers.Report({}, {}, (), (), (), ()), {})
    if not columns:
        raise typer.BadParameter("a table needs --label or --attribute", param_hint="--label")
    return importers.from_table(source, root, columns, name=name, version=version, **of_table)
