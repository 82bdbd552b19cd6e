"""Commands for datasets: import labelled pictures, list and show what is registered."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from db.blobs import LocalBlobs
    from db.session import Database
    from ml.importers import Imported
    from ml.manifest import Manifest
    from ml.splits import Leak

app = typer.Typer(help="Import and look at labelled pictures.", no_args_is_help=True)
SHOWN = 10


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder with a folder per class, a .csv, or a manifest (.json).")],
    name: Annotated[str, typer.Option(help="The dataset's name.")],
    version: Annotated[str, typer.Option(help="Its version.")] = "1",
    images: Annotated[Path | None, typer.Option(help="Where a table's pictures are; without it, beside it.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="GROUP=COLUMN", help="A column with one label of several. Repeatable.")
    ] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="GROUP=COLUMN", help="A column of true/false, or of a;b;c. Repeatable.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="A value that means that nobody knows the label. Repeatable.")
    ] = None,
    image_column: Annotated[str, typer.Option(help="The column with the pictures' paths.")] = "image",
    split_column: Annotated[str, typer.Option(help="The column with the splits; empty for none.")] = "split",
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Pictures with one value here must not be parted by a split.")
    ] = None,
    shares: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=SHARE,…", help="Split anew, as train=0.8,validation=0.1,test=0.1, by near-duplicates."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
) -> None:
    """Register labelled pictures as a version of a dataset. The pictures stay where they are, known by their hashes.

    Says what it finds: counts, unreadable pictures, exact and near duplicates, and what leaks between the splits.
    """
    from ml import splits
    from worker import manifests

    root = images or (source if source.is_dir() else source.parent)
    columns = _columns(label, "exclusive", ignore) | _columns(attribute, "attributes", ignore)
    of_table = {"image": image_column, "split": split_column or None, "group_column": by}
    imported = _imported(source, root, columns, name, version, of_table)
    made = imported.manifest
    if shares:
        made = splits.split(made, imported.hashes, _shares(shares), column=by, seed=seed)
    leaks = splits.leaks(made.entries, imported.hashes, by)
    _show(made, imported, leaks)
    found = {
        "unreadable": len(imported.report.unreadable),
        "exact_duplicates": len(imported.report.exact_duplicates),
        "near_duplicates": len(imported.report.near_duplicates),
        "leaks": len(leaks),
    }
    with opened() as (database, blobs, _):
        dataset = manifests.store(database, blobs, made, str(root.resolve()), found)
    typer.echo(f"{dataset.ref}: {dataset.entries} pictures, SHA-256 {dataset.sha256}")


@app.command(name="list")
def list_() -> None:
    """List the registered datasets."""
    from rich.console import Console
    from rich.table import Table

    from db import datasets

    with opened() as (database, _, _), database.transaction() as session:
        found = datasets.every(session)
    table = Table("dataset", "pictures", "groups", "leaks", "created", box=None, header_style="bold")
    for dataset in found:
        groups = ", ".join(f"{name} ({len(g['labels'])})" for name, g in dataset.summary.get("groups", {}).items())
        leaks = str(dataset.summary.get("leaks", "?"))
        table.add_row(dataset.ref, str(dataset.entries), groups, leaks, f"{dataset.created_at:%Y-%m-%d %H:%M}")
    Console(highlight=False).print(table)


@app.command()
def show(ref: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Without a version, the newest.")]) -> None:
    """Show a dataset: its hash, where its pictures are, and how many each label has in each split."""
    from rich.console import Console

    from db import datasets

    with opened() as (database, _, _), database.transaction() as session:
        dataset = datasets.by_ref(session, ref)
    screen = Console(highlight=False)
    screen.print(f"[bold]{dataset.ref}[/]  {dataset.entries} pictures below {dataset.images_root}", soft_wrap=True)
    screen.print(f"SHA-256 {dataset.sha256}", soft_wrap=True)
    screen.print(_counts(dataset.summary.get("counts", {})))


@contextmanager
def opened() -> "Iterator[tuple[Database, LocalBlobs, Path]]":
    """The system's database, its blob store and its folder of models."""
    from db.blobs import LocalBlobs
    from db.session import Database
    from worker.cli_keys import owners_place

    with owners_place() as where:
        database = Database(where.database_url, pool_size=3, application_name="tagmill cli")
        try:
            yield database, LocalBlobs(where.blob_root), where.model_root
        finally:
            database.dispose()


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


def _columns(given: list[str] | None, kind: Any, ignore: list[str] | None) -> dict[str, Any]:
    from ml.importers import Column

    found = {}
    for text in given or ():
        group, equals, column = text.partition("=")
        found[group] = Column(column if equals else group, kind, frozenset(ignore or ()))
    return found


def _shares(text: str) -> dict[str, float]:
    try:
        return {name.strip(): float(share) for name, _, share in (part.partition("=") for part in text.split(","))}
    except ValueError:
        raise typer.BadParameter("expected NAME=SHARE,…, as train=0.8,test=0.2", param_hint="--shares") from None


def _show(made: "Manifest", imported: "Imported", leaks: "list[Leak]") -> None:
    from rich.console import Console
    from rich.markup import escape

    screen = Console(stderr=True, highlight=False)
    report = imported.report
    screen.print(_counts(made.counts()))
    for image, code in list(report.unreadable.items())[:SHOWN]:
        screen.print(f"[yellow]left out[/] {escape(image)} ({code})", soft_wrap=True)
    if report.unlabelled:
        screen.print(f"{len(report.unlabelled)} pictures without any label left out")
    screen.print(
        f"{len(report.unreadable)} unreadable, {len(report.exact_duplicates)} sets of equal pictures,"
        f" {len(report.near_duplicates)} pairs of near-duplicates"
    )
    colour = "red" if leaks else "green"
    screen.print(f"[{colour}]{len(leaks)} leaks between splits[/]")
    for leak in leaks[:SHOWN]:
        where = ", ".join(f"{images[0]} ({split}, {len(images)})" for split, images in leak.images.items())
        screen.print(f"  {leak.kind} {escape(leak.value[:60])}: {escape(where)}", soft_wrap=True)


def _counts(counts: dict[str, dict[str, dict[str, int]]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    names = sorted({split for labels in counts.values() for by_split in labels.values() for split in by_split})
    table = Table("group", "label", *names, box=None, header_style="bold")
    for group, labels in counts.items():
        for name, by_split in labels.items():
            table.add_row(escape(group), escape(name), *(str(by_split.get(split, 0)) for split in names))
    return table
