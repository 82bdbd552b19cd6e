"""Splits, shows and registers what an import has made of pictures; where they are from is not its business."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from worker.dataset_options import parsed

if TYPE_CHECKING:
    from db.blob_store import Blobs
    from db.session import Database
    from ml.importers import Imported
    from worker.stored_pictures import Gathered


@contextmanager
def opened() -> "Iterator[tuple[Database, Blobs, Path]]":
    """The system's database, its blob store and its folder of models."""
    from worker.cli_keys import owners_place

    with owners_place() as where, where.database(pool_size=3) as database:
        yield database, where.blobs(), where.model_root


def register(
    database: "Database",
    blobs: "Blobs",
    imported: "Imported",
    root: str,
    found: Mapping[str, Any],
    by: str | None,
    shares: str | None,
    seed: int,
    notes: tuple[str, ...] = (),
) -> None:
    """Split if asked for, say what was found, keep the manifest."""
    from ml import splits
    from worker import dataset_screen, manifests

    made = imported.manifest
    if shares:
        made = splits.split(made, imported.hashes, parsed(shares), column=by, seed=seed)
    leaks = splits.leaks(made.entries, imported.hashes, by)
    dataset_screen.show(made, imported.report, leaks, notes)
    counted = {**imported.report.numbers(), "conflicts": len(imported.report.conflicts), "leaks": len(leaks)}
    dataset = manifests.store(database, blobs, made, root, {**found, **counted})
    typer.echo(f"{dataset.ref}: {dataset.entries} pictures, SHA-256 {dataset.sha256}")


def register_stored(
    database: "Database",
    blobs: "Blobs",
    gathered: "Gathered",
    origin: Mapping[str, Any],
    by: str | None,
    shares: str | None,
    seed: int,
) -> None:
    """The same, of pictures in the blob store."""
    from worker.manifests import IN_STORE

    register(database, blobs, gathered.imported, IN_STORE, origin, by, shares, seed, gathered.notes)
